//! What users type. The text here is the manual: `weir --help` prints it.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::roles::Role;
use crate::{admin, backup, broker, check, config, erase, lone, migrate, replay, score, sql, up};

/// Weir judges chat messages: an HTTP door, a log that loses nothing, a model that
/// scores toxicity and sentiment, history, and SQL over all of it.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version,
    max_term_width = 100,
    after_help = "Start with `weir up`, then in another terminal `weir replay FILE --verify` and `weir sql`.\n\
                  Settings: a file given with --config or WEIR_CONFIG, and the environment (WEIR_LISTEN, \
                  WEIR_BUS__BROKERS, ...). `weir config --print` shows the result.\n\
                  Logs go to standard error; WEIR_LOG says how much of them: WEIR_LOG=debug weir up, or for one \
                  part more than for the rest, WEIR_LOG=info,weir_bus=debug weir up."
)]
pub(crate) struct Weir {
    #[command(flatten)]
    config: config::Source,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine, with nothing else installed
    Up(up::Up),
    /// Run the role `ingest`: the HTTP door for messages, accounts and history
    Ingest(lone::Lone),
    /// Run the role `process`: normalise, score, decide
    Process(lone::Lone),
    /// Run the role `sink`: write verdicts into history and lake
    Sink(lone::Lone),
    /// Run the role `query`: SQL over lake and tail
    Query(lone::Lone),
    /// Make the topics, tables and keys that lone roles share, or bring them up to date
    Migrate(migrate::Migrate),
    /// Run the embedded broker alone: the Kafka protocol over files, on one machine
    Broker(broker::Command),
    /// Score texts from files or standard input; one JSON verdict per line out
    Score(score::Score),
    /// Send messages to a running Weir and follow them to their verdicts
    Replay(replay::Replay),
    /// Ask a running Weir in SQL; without a query, a prompt
    Sql(sql::Sql),
    /// Manage accounts of a running Weir
    #[command(subcommand)]
    User(admin::User),
    /// Manage API keys of a running Weir
    #[command(subcommand)]
    Key(admin::Key),
    /// Look at, replay or discard what a running Weir could not process
    #[command(subcommand)]
    Dead(admin::Dead),
    /// Erase what a sender said, or a message, from everything that Weir keeps
    Erase(erase::Command),
    /// Tell whether a running Weir is well, and where its doors are
    Check(check::Check),
    /// Copy a running Weir's data folder
    Backup(backup::Backup),
    /// Make a data folder of a copy
    Restore(backup::Restore),
    /// Check or show the settings
    Config(config::Command),
}

impl Weir {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let source = &self.config;
        match self.command {
            Command::Up(up) => up.run(source),
            Command::Ingest(lone) => lone.run(Role::Ingest, source),
            Command::Process(lone) => lone.run(Role::Process, source),
            Command::Sink(lone) => lone.run(Role::Sink, source),
            Command::Query(lone) => lone.run(Role::Query, source),
            Command::Migrate(migrate) => migrate.run(source),
            Command::Broker(command) => command.run(),
            Command::Score(score) => score.run(source),
            Command::Replay(replay) => replay.run(source),
            Command::Sql(sql) => sql.run(source),
            Command::User(command) => command.run(source),
            Command::Key(command) => command.run(source),
            Command::Dead(command) => command.run(source),
            Command::Erase(command) => command.run(source),
            Command::Check(check) => check.run(source),
            Command::Backup(backup) => backup.run(source),
            Command::Restore(restore) => restore.run(source),
            Command::Config(command) => command.run(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn help_tells_every_way_to_set_something() {
        let help = super::Weir::command().render_long_help().to_string();
        for name in ["--config", "WEIR_CONFIG", "WEIR_LISTEN", "WEIR_LOG"] {
            assert!(help.contains(name), "{name} is not in: {help}");
        }
    }

    #[test]
    fn commands_and_flags_do_not_contradict_each_other() {
        super::Weir::command().debug_assert();
    }
}
