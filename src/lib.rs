pub mod catalog;
pub mod config;
pub mod engine;
pub mod event;
pub mod mart;
