//! rawmart: from raw JSON events to deduplicated Hive-partitioned Parquet and marts.
//!
//! `docs/architecture.md` is the map of these rooms. The public rooms are those that the binary, the tests and the
//! benches use. They are no interface for other crates.
//!
//! ```text
//!             cli ── config                          what was asked        → Job
//!              │
//!             plan                                   what will be done     → RunPlan
//!              │
//!             run ──────────────────────────┐        verbs and the order of effects
//!              │                            │
//!           absorb                        mart       one commit of one source; one SELECT, one table
//!    ┌─────────┼─────────┬───────────┐      │
//!   raw  ──▶ dedup ──▶ publish       └──── lake      the data; an open lake: Reading | Writing
//!    │                   │                  │
//!    └────── store ──────┴─────────────── ledger     the log
//!             engine · catalog                       the door to DataFusion; table definitions
//!         ─────────────────────────────────────
//!             layout · event · time · names          the vocabulary
//!             progress                               what happens, as events
//!             report                                 listens, and tells the world
//! ```

#![warn(missing_docs)]
// A test may be one long table of cases.
#![cfg_attr(test, allow(clippy::too_many_lines))]

mod absorb;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod dedup;
mod engine;
pub mod event;
mod infer;
pub mod lake;
mod layout;
pub mod ledger;
pub mod mart;
mod names;
#[cfg(test)]
mod pages;
pub mod plan;
pub mod progress;
pub mod publish;
pub mod raw;
pub mod report;
pub mod run;
pub mod store;
mod time;
