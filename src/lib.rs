//! rawmart: from raw JSON events to deduplicated Hive-partitioned Parquet and marts.
//!
//! ```text
//!             cli ── config                          what was asked        → Job
//!              │
//!             plan                                   what will be done     → RunPlan
//!              │
//!             run ───────────── ledger               in which order, and what was already done
//!    ┌─────────┼─────────┬──────────┬────────┐
//!   raw  ──▶ dedup ──▶ publish ──▶ mart ──▶ catalog  the data
//!    │                   │  ▲        │
//!    └─── store ─────────┘  └────────┘               marts are published through the same door
//!             engine                                 the two doors outward: store, engine
//!         ─────────────────────────────────────
//!             layout · event · time                  the vocabulary
//!             report                                 what the world is told
//! ```

pub mod absorb;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod dedup;
pub mod engine;
pub mod event;
pub mod lake;
pub mod layout;
pub mod ledger;
pub mod mart;
pub mod names;
#[cfg(test)]
mod pages;
pub mod plan;
pub mod progress;
pub mod publish;
pub mod raw;
pub mod report;
pub mod run;
pub mod store;
pub mod time;
