//! The agent's own settings: command line and configuration file.
