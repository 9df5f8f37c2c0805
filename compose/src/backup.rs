//! `weir backup` and `weir restore`: a copy of a data folder, made while Weir runs.
//!
//! What is copied is older the further down the stream it lies, so that nothing in the
//! copy has seen what the copy lacks:
//!
//! ```text
//! committed offsets → store → lake → weir.dead … weir.verdicts → weir.messages
//! ```
//!
//! A Weir that starts on it reads again from the older offsets what store and lake hold
//! already, and drops it by its fences, as after a crash. The log's files are copied as a
//! crash would leave them: torn ends are cut at the start. The store copies itself, on
//! request, because its engine moves its files about.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use weir_records::topic;
use weir_sinks::lake;

use crate::client::{self, Client, Connection};
use crate::config::Source;
use crate::data::{self, STORE_COPY};
use crate::{logs, out};

/// Says that a copy is whole; written last.
const WHOLE: &str = "backup.json";
/// Layout of a copy.
const FORMAT: u32 = 1;
/// How long the store may take to copy itself.
const STORE_TIME: Duration = Duration::from_hours(24);
/// Erasing and upkeep may take files away under a copy of the lake; then it is begun again.
const TRIES: usize = 5;
/// The lake, where it lies in the data folder.
const LAKE: &str = "lake";
/// The log of a Delta table, and the hint in it where to begin to read.
const LOG: &str = "_delta_log";
const LAST_CHECKPOINT: &str = "_last_checkpoint";

/// `weir backup`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  weir backup --to /backups/weir-monday\n\nThe copy holds texts, accounts and secrets: it is \
                  readable by you alone. What is erased later stays in it."
)]
pub(crate) struct Backup {
    /// Folder to make; it must not exist
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    #[command(flatten)]
    connection: Connection,
}

/// `weir restore`
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// Folder that `weir backup` made
    from: PathBuf,
    /// Data folder to make; it must not exist [default: the setting `data`]
    #[arg(long, env = "WEIR_DATA")]
    data: Option<PathBuf>,
}

/// What a whole copy says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Whole {
    format: u32,
    weir: String,
    made_at: Timestamp,
}

impl Backup {
    pub(crate) fn run(self, source: &Source) -> Result<ExitCode> {
        logs::start(true);
        let data = self.connection.data(source)?;
        let data = data.as_path();
        ensure!(
            data.join("version").is_file(),
            "{} is no data folder; name it with --data",
            data.display()
        );
        ensure!(
            data.join("broker/topics").is_dir(),
            "the topics are not in {}: a copy without them would have lost what they hold and the store does not yet",
            data.display()
        );
        let _held = data::hold_log(data)
            .with_context(|| format!("can't lock the log in {}", data.display()))?
            .context("another backup is being made, or the log is being cut; try again later")?;
        let part = begin(&self.to)?;
        let client = self.connection.client(source)?;
        let bar = bar();
        let copied = client::block_on(copy_running(&client, data, &part, &bar));
        bar.finish_and_clear();
        end(copied, &part, &self.to)?;
        let to = self.to.display();
        let mut out = out::stdout();
        writeln!(
            out,
            "{to} holds all that was accepted before it was begun; `weir restore` makes a data folder of it"
        )?;
        if !self.to.join(LAKE).is_dir() {
            writeln!(
                out,
                "The lake is not in {} and so not in {to}: what is restored begins a new one",
                data.display()
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Restore {
    pub(crate) fn run(self, source: &Source) -> Result<ExitCode> {
        logs::start(true);
        let file = self.from.join(WHOLE);
        let whole = fs::read(&file)
            .with_context(|| format!("{} is no whole backup", self.from.display()))?;
        let whole: Whole = serde_json::from_slice(&whole)
            .with_context(|| format!("{} is not what Weir wrote", file.display()))?;
        ensure!(
            whole.format <= FORMAT,
            "the backup was made by Weir {}, in a newer format ({}, this one knows {FORMAT}); use that version or newer",
            whole.weir,
            whole.format
        );
        let data = self.data.map_or_else(|| source.data(), Ok)?;
        let part = begin(&data)?;
        let bar = bar();
        let copied = Copier { bar: &bar }
            .tree(&self.from, &part)
            .and_then(|()| fs::remove_file(part.join(WHOLE)).context("the copy can't be finished"));
        bar.finish_and_clear();
        end(copied, &part, &data)?;
        writeln!(
            out::stdout(),
            "{} is as it was at {}; start it with `weir up --data {}`",
            data.display(),
            whole.made_at,
            data.display()
        )?;
        if !data.join(LAKE).is_dir() {
            writeln!(
                out::stdout(),
                "The lake is not in the copy. One that Weir has written since holds what this log lacks, and is \
                 refused: name a new folder in the setting `lake`"
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn copy_running(client: &Client, data: &Path, to: &Path, bar: &ProgressBar) -> Result<()> {
    let made_at = Timestamp::now();
    let copier = Copier { bar };
    let broker = data.join("broker");
    copier.files(&broker, &to.join("broker"))?;

    ensure!(
        data.join("store").is_dir(),
        "there is no store in {}: one in a CQL database is backed up with the database's own tools",
        data.display()
    );
    let request = client
        .request(Method::POST, "/v1/admin/backup/store")
        .timeout(STORE_TIME);
    client
        .send(request)
        .await
        .context("the store can't be copied")?;
    let copy = data.join(STORE_COPY);
    if let Err(error) = move_tree(&copy, &to.join("store"), &copier) {
        // What is erased from the store must not stay here.
        let _ = fs::remove_dir_all(&copy);
        return Err(error);
    }

    let lake = data.join(LAKE);
    if lake.is_dir() {
        copier.lake(&lake, &to.join(LAKE)).await?;
    }
    for name in upstream(&broker.join("topics"))? {
        let place = Path::new("topics").join(name);
        copier.topic(&broker.join(&place), &to.join("broker").join(&place))?;
    }
    copier.tree(&data.join("secrets"), &to.join("secrets"))?;
    for name in ["version", "admin.json"] {
        copier.file(&data.join(name), &to.join(name))?;
    }
    let whole = Whole {
        format: FORMAT,
        weir: env!("CARGO_PKG_VERSION").to_owned(),
        made_at,
    };
    data::write_whole(&to.join(WHOLE), &serde_json::to_vec_pretty(&whole)?, 0o600)
}

/// Topics, each before what it is made from.
fn upstream(topics: &Path) -> Result<Vec<String>> {
    let mut names = names(topics)?;
    names.retain(|name| !name.starts_with('.'));
    names.sort_by_key(|name| {
        [topic::VERDICTS, topic::MESSAGES]
            .iter()
            .position(|last| last == name)
            .map_or(0, |at| at + 1)
    });
    Ok(names)
}

/// Makes `DIR.part`, which becomes `DIR` when all of it is there.
fn begin(to: &Path) -> Result<PathBuf> {
    let shown = to.display();
    let name = to.file_name().context("the folder needs a name")?;
    ensure!(
        !to.exists(),
        "{shown} exists already; choose another folder"
    );
    let mut part = name.to_owned();
    part.push(".part");
    let part = to.with_file_name(part);
    match data::private_folder(&part) {
        Ok(()) if names(&part)?.is_empty() => Ok(part),
        Ok(()) => bail!(
            "{} is left from a copy that broke off; remove it",
            part.display()
        ),
        Err(error) => Err(error),
    }
}

/// Gives it its name, or takes it away again.
fn end(copied: Result<()>, part: &Path, to: &Path) -> Result<()> {
    if let Err(error) = copied {
        // Nobody needs half a copy; that it can't be removed is not the news.
        let _ = fs::remove_dir_all(part);
        return Err(error);
    }
    fs::rename(part, to).with_context(|| format!("can't make {}", to.display()))?;
    sync_folder(to.parent())
}

/// Renames, or copies where it is another disk.
fn move_tree(from: &Path, to: &Path, copier: &Copier<'_>) -> Result<()> {
    if fs::rename(from, to).is_err() {
        copier.tree(from, to)?;
        fs::remove_dir_all(from).with_context(|| format!("can't remove {}", from.display()))?;
    }
    Ok(())
}

/// Copies files, each durable when it is done.
struct Copier<'a> {
    bar: &'a ProgressBar,
}

impl Copier<'_> {
    /// The files of a folder, without those below it.
    fn files(&self, from: &Path, to: &Path) -> Result<()> {
        data::private_folder(to)?;
        for name in names(from)? {
            let source = from.join(&name);
            if source.is_file() {
                self.file(&source, &to.join(&name))?;
            }
        }
        sync_folder(Some(to))
    }

    fn tree(&self, from: &Path, to: &Path) -> Result<()> {
        self.files(from, to)?;
        for name in names(from)? {
            if from.join(&name).is_dir() {
                self.tree(&from.join(&name), &to.join(&name))?;
            }
        }
        Ok(())
    }

    /// The table's log first: what it refers to was there before it was written. Begun
    /// again where a part of it went meanwhile.
    async fn lake(&self, from: &Path, to: &Path) -> Result<()> {
        for _ in 0..TRIES {
            if self.files_of_table(&from.join(LOG), &to.join(LOG))?
                && self.files_of_table(from, to)?
            {
                let copied = lake::Config {
                    url: to.display().to_string(),
                    ..lake::Config::default()
                };
                if lake::missing_files(&copied).await?.is_empty() {
                    return Ok(());
                }
            }
            fs::remove_dir_all(to).with_context(|| format!("can't remove {}", to.display()))?;
        }
        bail!(
            "files of the lake were removed each time it was copied; try again when nothing is being erased"
        )
    }

    /// False where one has gone since its folder was read.
    fn files_of_table(&self, from: &Path, to: &Path) -> Result<bool> {
        data::private_folder(to)?;
        for name in names(from)? {
            let (source, target) = (from.join(&name), to.join(&name));
            // A hint may point at a checkpoint that came after the folder was read.
            let left_out =
                name == LOG || name == LAST_CHECKPOINT || name.starts_with("_weir_probe");
            let there = if left_out {
                true
            } else if source.is_dir() {
                self.files_of_table(&source, &target)?
            } else {
                self.file(&source, &target)?
            };
            if !there {
                return Ok(false);
            }
        }
        sync_folder(Some(to))?;
        Ok(true)
    }

    /// Of each partition what is known to be whole, then the records, oldest first.
    fn topic(&self, from: &Path, to: &Path) -> Result<()> {
        self.files(from, to)?;
        for partition in names(from)? {
            let (from, to) = (from.join(&partition), to.join(&partition));
            if !from.is_dir() {
                continue;
            }
            data::private_folder(&to)?;
            let mut files = names(&from)?;
            files.sort_by_key(|name| (name.contains('.'), name.clone()));
            for name in files {
                // A segment that retention took away meanwhile is not missed.
                self.file(&from.join(&name), &to.join(&name))?;
            }
            sync_folder(Some(&to))?;
        }
        Ok(())
    }

    /// False where there is no such file.
    fn file(&self, from: &Path, to: &Path) -> Result<bool> {
        let failed = || format!("can't copy {} to {}", from.display(), to.display());
        let mut source = match File::open(from) {
            Ok(source) => source,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).with_context(failed),
        };
        let mut copy = || -> io::Result<()> {
            let permissions = source.metadata()?.permissions();
            let mut target = File::create_new(to)?;
            target.set_permissions(permissions)?;
            self.bar.inc(io::copy(&mut source, &mut target)?);
            target.sync_all()
        };
        copy().with_context(failed)?;
        Ok(true)
    }
}

/// Names in a folder, sorted; none where there is no folder.
fn names(folder: &Path) -> Result<Vec<String>> {
    let failed = || format!("can't read {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(failed),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.with_context(failed)?.file_name();
        names.extend(name.into_string().ok());
    }
    names.sort();
    Ok(names)
}

fn sync_folder(folder: Option<&Path>) -> Result<()> {
    let folder = folder
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    File::open(folder)
        .and_then(|open| open.sync_all())
        .with_context(|| format!("can't sync {}", folder.display()))
}

/// How much there is changes while it is copied, so there is no end to show.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {bytes} copied, {bytes_per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_copied_before_what_they_are_made_from() {
        let folder = tempfile::tempdir().unwrap();
        for name in [topic::MESSAGES, "weir.dead", topic::VERDICTS, ".deleted-x"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        assert_eq!(
            upstream(folder.path()).unwrap(),
            ["weir.dead", topic::VERDICTS, topic::MESSAGES]
        );
    }

    #[test]
    fn a_copy_that_broke_off_leaves_nothing_and_a_folder_that_exists_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("copy");
        let part = begin(&to).unwrap();
        fs::write(part.join("half"), "").unwrap();
        let refusal = begin(&to).unwrap_err().to_string();
        assert!(refusal.contains("copy.part"), "{refusal}");
        end(Err(anyhow::anyhow!("disk full")), &part, &to).unwrap_err();
        assert_eq!(names(folder.path()).unwrap(), [""; 0]);
        fs::create_dir(&to).unwrap();
        let refusal = begin(&to).unwrap_err().to_string();
        assert!(refusal.contains("exists already"), "{refusal}");
    }
}
