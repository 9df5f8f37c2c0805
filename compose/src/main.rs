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
        Err(error) => report(&error),
    }
}

/// One clear line, and a non-zero exit.
#[expect(
    clippy::print_stderr,
    reason = "a command's last word belongs on the terminal"
)]
fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("weir: {error:#}");
    ExitCode::FAILURE
}
