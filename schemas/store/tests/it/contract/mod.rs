//! What every store must do, written against the traits.

mod accounts;
mod history;
mod paging;
