//! Load, by tools that others maintain.

pub mod oha;
pub mod wrk;

/// Whether a connection is used once or again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// One for each request.
    Fresh,
    /// One for many.
    Kept,
}
