//! What stands at the door of a store and sees every operation come and go.
//!
//! ```text
//! list, head, get … ─▶ before ─▶ takes effect ─▶ after ─▶ answer
//!                        │ error: no effect        │ error: effect, and a lost answer
//! ```
//!
//! A run may die at any operation and two may meet at any; through a gate that is tried out at each
//! of them. Production has none. Reads of an engine, through [`super::Store::object_store`], do not
//! pass it.

use std::fmt::Debug;
use std::io;

use async_trait::async_trait;

/// What is done through the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Names below a prefix.
    List,
    /// Size and ETag of an object.
    Head,
    /// A whole object.
    Get,
    /// A part of an object.
    Read,
    /// A new object, if its key is free.
    Create,
    /// A new object without a condition.
    Upload,
    /// A staged object under its final name.
    Publish,
    /// The end of an object.
    Delete,
    /// The lock of a lake on disk.
    Lock,
}

/// One operation on one key.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// What is done.
    pub operation: Operation,
    /// URL of the store's root.
    pub root: &'a str,
    /// A prefix when listing, the target when publishing.
    pub key: &'a str,
}

/// Sees every operation before and after it takes effect; may hold it or fail it.
#[async_trait]
pub trait Gate: Debug + Send + Sync {
    /// An error keeps the operation from taking effect.
    async fn before(&self, access: Access<'_>) -> io::Result<()>;

    /// Whether the operation succeeded or not. An error is all that the caller learns.
    async fn after(&self, access: Access<'_>) -> io::Result<()>;
}
