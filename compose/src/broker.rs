//! `weir broker`: the embedded broker alone, for any Kafka client on this machine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use secrecy::SecretString;
use weir_broker::{Auth, Broker, Config};

use crate::{logs, memory, signals};

/// `weir broker`
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Address to listen on; beyond this machine only with --auth plain
    #[arg(long, default_value = "127.0.0.1:9092")]
    listen: SocketAddr,
    /// Folder of the log
    #[arg(long, default_value = "broker-data")]
    data: PathBuf,
    /// Who may connect
    #[arg(long, value_enum, default_value_t = AuthMode::None)]
    auth: AuthMode,
    /// User name for SASL/PLAIN
    #[arg(long, default_value = "weir")]
    username: String,
    /// File that holds the password for SASL/PLAIN
    #[arg(long, required_if_eq("auth", "plain"))]
    password_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AuthMode {
    None,
    Plain,
}

impl Command {
    pub(crate) fn run(self) -> Result<ExitCode> {
        memory::settle();
        logs::start(false);
        tokio::runtime::Runtime::new()?.block_on(self.serve())
    }

    async fn serve(self) -> Result<ExitCode> {
        let stop = signals::stop_token()?;
        let mut config = Config::new(self.listen, self.data.clone());
        config.auth = self.auth()?;
        let broker = Broker::start(config, &prometheus::Registry::new()).await?;
        tracing::info!(address = %broker.address(), data = %self.data.display(), "broker is ready");
        stop.cancelled().await;
        broker.shutdown().await;
        Ok(ExitCode::SUCCESS)
    }

    fn auth(&self) -> Result<Auth> {
        let Some(file) = self
            .password_file
            .as_ref()
            .filter(|_| self.auth == AuthMode::Plain)
        else {
            anyhow::ensure!(
                self.listen.ip().is_loopback(),
                "without --auth plain the broker listens on this machine only; choose a loopback address"
            );
            return Ok(Auth::None);
        };
        let password = std::fs::read_to_string(file)
            .with_context(|| format!("can't read {}", file.display()))?;
        anyhow::ensure!(
            !password.trim().is_empty(),
            "{} holds no password",
            file.display()
        );
        Ok(Auth::Plain {
            username: self.username.clone(),
            password: SecretString::from(password.trim().to_owned()),
        })
    }
}
