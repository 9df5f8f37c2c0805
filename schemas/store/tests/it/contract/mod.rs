//! What every store must do, written against the traits.

mod accounts;
mod erase;
mod history;
mod paging;
