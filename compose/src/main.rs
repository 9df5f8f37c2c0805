//! `weir`: every role and every tool of Weir in one binary.
//!
//! This file only names the commands; each has a file of its own. Which parts a
//! role is made of is decided in [`roles`], once.

mod accept;
mod admin;
mod backends;
mod backup;
mod broker;
mod check;
mod cli;
mod client;
mod config;
mod data;
mod erase;
mod first_run;
mod logs;
mod lone;
mod memory;
mod migrate;
mod out;
mod replay;
mod retention;
mod roles;
mod run;
mod runtime;
mod score;
mod serve;
mod signals;
mod sql;
mod text_input;
mod up;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Two TLS stacks are linked in; without a choice rustls panics at the first use.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        return report(&anyhow::anyhow!(
            "TLS could not be set up: a provider was installed twice"
        ));
    }
    match cli::Weir::parse().run() {
        Ok(code) => code,
        Err(_) if out::nobody_reads() => ExitCode::from(out::NOBODY_READS),
        Err(error) => report(&error),
    }
}

/// One clear line, and a non-zero exit.
fn report(error: &anyhow::Error) -> ExitCode {
    // Where it can't be said, the exit still says it.
    let _ = writeln!(std::io::stderr(), "weir: {error:#}");
    ExitCode::FAILURE
}
