//! Structured logs on standard error: a fixed message plus fields, never the text
//! of a message and never a secret.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Libraries that at a finer level log what passes through them: queries, plans, records.
const NEVER_FINER: [&str; 6] = [
    "datafusion",
    "datafusion_optimizer",
    "sqlparser",
    "delta_kernel",
    "deltalake",
    "tokenizers",
];

/// `WEIR_LOG` sets what is logged (`info`, `debug`, `weir_bus=debug`, ...). On a
/// terminal the lines are for people, elsewhere they are JSON.
pub(crate) fn start(quiet: bool) {
    let fallback = if quiet {
        "warn"
    } else {
        "info,buoyant_kernel=warn,ort=warn"
    };
    let wanted = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new(fallback));
    let filter = NEVER_FINER.iter().fold(wanted, |filter, library| {
        match format!("{library}=warn").parse() {
            Ok(limit) => filter.add_directive(limit),
            Err(_) => filter,
        }
    });
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        lines.with_target(false).init();
    } else {
        lines.json().init();
    }
}
