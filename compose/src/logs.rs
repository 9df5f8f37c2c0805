//! Structured logs on standard error: a fixed message plus fields, never the text
//! of a message and never a secret.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Libraries that at a finer level log what passes through them: queries, plans, records.
const NEVER_FINER: [&str; 15] = [
    "buoyant_kernel",
    "buoyant_kernel_engine",
    "datafusion",
    "datafusion_catalog_listing",
    "datafusion_datasource",
    "datafusion_datasource_parquet",
    "datafusion_expr",
    "datafusion_optimizer",
    "datafusion_physical_plan",
    "datafusion_pruning",
    "datafusion_sql",
    "deltalake",
    "deltalake_core",
    "sqlparser",
    "tokenizers",
];

/// `WEIR_LOG` sets what is logged (`info`, `debug`, `weir_bus=debug`, ...). On a
/// terminal the lines are for people, elsewhere they are JSON.
pub(crate) fn start(quiet: bool) {
    let fallback = if quiet {
        "warn"
    } else {
        "info,buoyant_kernel=warn,fjall=warn,lsm_tree=warn,ort=warn"
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

#[cfg(test)]
mod tests {
    use super::NEVER_FINER;

    #[test]
    fn every_library_that_is_kept_quiet_is_one_that_is_linked() {
        let locked = include_str!("../../Cargo.lock");
        for library in NEVER_FINER {
            let linked = [library.to_owned(), library.replace('_', "-")]
                .iter()
                .any(|name| locked.contains(&format!("\nname = \"{name}\"\n")));
            assert!(linked, "{library} is not linked");
        }
    }
}
