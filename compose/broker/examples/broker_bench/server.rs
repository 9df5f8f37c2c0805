//! The brokers that are measured, each a process of its own: Weir's, which is this program started
//! again, and Apache Kafka by way of `compose/servers`.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use weir_broker::{Broker, Config};

use crate::{Outcome, clients};

/// Tells this program to be the broker, in that folder.
pub(crate) const SERVE: &str = "BENCH_SERVE";

/// A broker that runs.
pub(crate) struct Server {
    pub(crate) address: String,
    pid: u32,
    kind: Kind,
}

enum Kind {
    Weir { child: Child, folder: PathBuf },
    Kafka { servers: PathBuf },
}

impl Server {
    /// Weir's broker on that folder.
    pub(crate) fn weir(folder: &Path) -> Outcome<Self> {
        let (child, address) = start(folder)?;
        Ok(Self {
            address,
            pid: child.id(),
            kind: Kind::Weir {
                child,
                folder: folder.to_owned(),
            },
        })
    }

    /// Apache Kafka with empty data, started by that script.
    pub(crate) fn kafka(servers: &Path) -> Outcome<Self> {
        let (address, pid) = answers(&run(servers, &["up", "kafka"])?)?;
        Ok(Self {
            address,
            pid,
            kind: Kind::Kafka {
                servers: servers.to_owned(),
            },
        })
    }

    /// Kills it and starts it on the data it has; answers the seconds from the start until
    /// every partition of the topic tells how much it holds.
    pub(crate) fn restart(&mut self, topic: &str) -> Outcome<f64> {
        let begin = match &mut self.kind {
            Kind::Weir { child, folder } => {
                child.kill()?;
                child.wait()?;
                let begin = Instant::now();
                (*child, self.address) = start(folder)?;
                self.pid = child.id();
                begin
            }
            Kind::Kafka { servers } => {
                run(servers, &["kill", "kafka"])?;
                let begin = Instant::now();
                (self.address, self.pid) = answers(&run(servers, &["start", "kafka"])?)?;
                begin
            }
        };
        clients::wait(&self.address, topic)?;
        Ok(begin.elapsed().as_secs_f64())
    }

    /// Stops it; Weir's data is removed.
    pub(crate) fn stop(self) -> Outcome<()> {
        match self.kind {
            Kind::Weir { mut child, folder } => {
                child.kill()?;
                child.wait()?;
                std::fs::remove_dir_all(folder)?;
            }
            Kind::Kafka { servers } => {
                run(&servers, &["stop", "kafka"])?;
            }
        }
        Ok(())
    }

    /// User and system time, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let fields: Vec<f64> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        // After the state, which is no number: utime and stime are the 11th and 12th; 100 ticks a second.
        (fields.get(10).unwrap_or(&0.0) + fields.get(11).unwrap_or(&0.0)) / 100.0
    }

    /// A figure of `/proc/…/status`, in MB of 1,024 KiB.
    pub(crate) fn status_mb(&self, field: &str) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .unwrap_or_default();
        line.split_whitespace()
            .next()
            .and_then(|kib| kib.parse::<f64>().ok())
            .unwrap_or_default()
            / 1024.0
    }
}

/// This program as Weir's broker, until it is killed.
pub(crate) fn serve(folder: PathBuf) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let config = Config::new("127.0.0.1:0".parse()?, folder);
        let broker = Broker::start(config, &prometheus::Registry::new()).await?;
        println!("ready {}", broker.address());
        std::future::pending::<()>().await;
        Ok(())
    })
}

fn start(folder: &Path) -> Outcome<(Child, String)> {
    let mut child = Command::new(std::env::current_exe()?)
        .env(SERVE, folder)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    let address = line
        .trim()
        .strip_prefix("ready ")
        .ok_or("the broker did not start")?
        .to_owned();
    Ok((child, address))
}

fn run(servers: &Path, arguments: &[&str]) -> Outcome<String> {
    // Its output goes to a file: the server that it starts would keep a pipe open.
    let said = tempfile::NamedTempFile::new()?;
    let status = Command::new(servers)
        .args(arguments)
        .stdout(said.reopen()?)
        .status()?;
    if !status.success() {
        return Err(format!("{} {arguments:?} failed", servers.display()).into());
    }
    Ok(std::fs::read_to_string(said.path())?)
}

/// Address and process of what `compose/servers` says it has started.
fn answers(said: &str) -> Outcome<(String, u32)> {
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("kafka answers on "))
        .ok_or("Apache Kafka did not start")?;
    let (address, pid) = line.split_once(", process ").ok_or("no process is named")?;
    Ok((address.to_owned(), pid.trim().parse()?))
}
