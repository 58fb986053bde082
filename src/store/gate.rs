//! A gate that sees every operation of a store come and go.
//!
//! ```text
//! list, head, get … ─▶ before ─▶ takes effect ─▶ after ─▶ answer
//!                        │ error: no effect        │ error: effect, and a lost answer
//! ```
//!
//! A run may die at any operation, and two runs may meet at any operation. With a gate, tests try this out at
//! each of them. In production there is no gate. Reads of an engine, through [`super::Store::object_store`], do
//! not pass through it.

use std::fmt::Debug;
use std::io;

use async_trait::async_trait;

/// The operation that passes through the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Lists the names below a prefix.
    List,
    /// Asks for the size and the ETag of an object.
    Head,
    /// Reads a whole object.
    Get,
    /// Reads a part of an object.
    Read,
    /// Makes a new object if its key is free.
    Create,
    /// Makes a new object without a condition.
    Upload,
    /// Puts a staged object under its final name.
    Publish,
    /// Deletes an object.
    Delete,
    /// Takes the lock of a lake on disk.
    Lock,
}

/// One operation on one key.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// The operation.
    pub operation: Operation,
    /// The URL of the root of the store.
    pub root: &'a str,
    /// The prefix of a listing, the target of a publication, or the key.
    pub key: &'a str,
}

/// Sees every operation before and after it takes effect. It may hold the operation or make it fail.
#[async_trait]
pub trait Gate: Debug + Send + Sync {
    /// An error keeps the operation from taking effect.
    async fn before(&self, access: Access<'_>) -> io::Result<()>;

    /// Called whether the operation has succeeded or not. If this gives an error, the caller learns nothing
    /// else.
    async fn after(&self, access: Access<'_>) -> io::Result<()>;
}
