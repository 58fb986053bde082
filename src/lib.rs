pub mod event;
pub mod config;
pub mod raw;
