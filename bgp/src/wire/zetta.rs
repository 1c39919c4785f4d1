//! The only place that names zettabgp: values we validated, as its types, for parsing and display.
