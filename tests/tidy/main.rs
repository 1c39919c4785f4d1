//! The rules of docs/conventions.md that a program can check.

mod docs;
mod layers;
mod sources;
