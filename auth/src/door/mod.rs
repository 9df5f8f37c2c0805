//! What every HTTP door shares: problem documents, checked bodies, the caller, and
//! the account routes themselves.

mod body;
mod code;
mod extract;
mod problem;
mod routes;

pub use body::{Json, parse_json};
pub use code::Code;
pub use extract::{Authenticated, ClientAddress};
pub use problem::{Fault, MEDIA_TYPE, Position, Problem};
pub use routes::router;
