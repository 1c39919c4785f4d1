mod crash;
mod fakes;
mod plugin;
mod verbs;
