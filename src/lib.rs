pub mod cli;
pub mod event;
pub mod config;
