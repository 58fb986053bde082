pub mod event;
pub mod config;
