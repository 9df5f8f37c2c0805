//! Starts `weir up` in a folder of its own and talks to it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Generous: machines that run tests are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Comments in the sample.
const SAMPLE: usize = 3_000;

/// The program with nothing of the caller's environment that would change settings.
pub(crate) fn weir() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WEIR_")) {
        command.env_remove(name);
    }
    let models = here().join("../models/weir-small-1");
    command.env("WEIR_MODEL__PATH", models);
    if let Ok(library) = std::env::var("WEIR_ONNXRUNTIME") {
        command.env("WEIR_MODEL__RUNTIME", library);
    }
    command
}

/// A data folder and the Weir that runs, or ran, on it.
pub(crate) struct Weir {
    folder: tempfile::TempDir,
    child: Option<Child>,
    url: String,
    http: reqwest::blocking::Client,
}

impl Weir {
    /// A new folder, and Weir on it.
    pub(crate) fn start() -> Self {
        Self::start_in(|_| ())
    }

    /// The same, with the data folder as it was made.
    pub(crate) fn start_in(make: impl FnOnce(&Path)) -> Self {
        let mut weir = Self {
            folder: tempfile::tempdir().unwrap(),
            child: None,
            url: String::new(),
            http: reqwest::blocking::Client::builder()
                .timeout(PATIENCE)
                .build()
                .unwrap(),
        };
        make(&weir.data());
        weir.restart(&[]);
        weir
    }

    /// Starts again on the same folder; waits until it says that it runs.
    pub(crate) fn restart(&mut self, settings: &[(&str, &str)]) {
        self.launch(settings);
        self.listens();
    }

    /// Starts again with these roles only.
    pub(crate) fn restart_as(&mut self, roles: &str) {
        self.launch_with(&["--roles", roles], &[]);
        self.listens();
    }

    fn listens(&mut self) {
        let output = self.child.as_mut().and_then(|child| child.stdout.take());
        let mut lines = BufReader::new(output.unwrap()).lines();
        let first = lines
            .next()
            .unwrap_or_else(|| panic!("weir did not start: {}", self.log()))
            .unwrap();
        self.url = first.rsplit(' ').next().unwrap().to_owned();
        // What follows is read to its end, so that the program never writes into nothing.
        std::thread::spawn(move || lines.for_each(drop));
    }

    /// Starts again on the same folder, and does not wait.
    pub(crate) fn launch(&mut self, settings: &[(&str, &str)]) {
        self.launch_with(&[], settings);
    }

    fn launch_with(&mut self, args: &[&str], settings: &[(&str, &str)]) {
        assert!(self.child.is_none(), "it still runs");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let child = weir()
            .args(["up", "--listen", "127.0.0.1:0", "--data"])
            .arg(self.data())
            .args(args)
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; answers how it ended, and after how long.
    pub(crate) fn stop(&mut self) -> (std::process::ExitStatus, Duration) {
        let began = Instant::now();
        let mut child = self.child.take().unwrap();
        signal(&child, "TERM");
        (child.wait().unwrap(), began.elapsed())
    }

    /// SIGTERM, and again as soon as the first has been heard.
    pub(crate) fn stop_twice(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().unwrap();
        signal(&child, "TERM");
        eventually("the first signal is heard", || {
            self.log().contains("a second signal stops at once")
        });
        signal(&child, "TERM");
        child.wait().unwrap()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("weir.log")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap()
    }

    pub(crate) fn admin(&self) -> Value {
        serde_json::from_slice(&fs::read(self.data().join("admin.json")).unwrap()).unwrap()
    }

    pub(crate) fn admin_key(&self) -> String {
        self.admin()["api_key"].as_str().unwrap().to_owned()
    }

    /// Status and JSON body of a request with a credential.
    pub(crate) fn call(
        &self,
        method: &str,
        path: &str,
        credential: &str,
        body: Option<&Value>,
    ) -> (u16, Value) {
        let method = method.parse().unwrap();
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(credential);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().unwrap();
        (
            response.status().as_u16(),
            response.json().unwrap_or(Value::Null),
        )
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let response = self.http.get(format!("{}{path}", self.url)).send().unwrap();
        (response.status().as_u16(), response.text().unwrap())
    }

    pub(crate) fn form(&self, path: &str, fields: &[(&str, &str)]) -> (u16, Value) {
        let body: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let request = self
            .http
            .post(format!("{}{path}", self.url))
            .body(body.join("&"));
        let response = request
            .header("content-type", "application/x-www-form-urlencoded")
            .send()
            .unwrap();
        (
            response.status().as_u16(),
            response.json().unwrap_or(Value::Null),
        )
    }

    /// Rows of a query, as JSON arrays. Asks again while Weir says to come back later, as it
    /// does until the newest rows are read back after a start.
    pub(crate) fn sql(&self, credential: &str, query: &str) -> Vec<Value> {
        let body = json!({ "query": query });
        let began = Instant::now();
        let (status, answer) = loop {
            let (status, answer) = self.call("POST", "/v1/sql", credential, Some(&body));
            if status != 503 || began.elapsed() > PATIENCE {
                break (status, answer);
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(status, 200, "{answer}");
        answer["rows"].as_array().unwrap().clone()
    }

    /// Whatever a test did: no secret and no text of the sample is in the log.
    fn nothing_leaked(&self) {
        let log = self.log();
        let mut never: Vec<String> = sample(SAMPLE)
            .iter()
            .filter_map(|message| message["text"].as_str())
            .filter(|text| text.len() > 20)
            .map(str::to_owned)
            .collect();
        if let Ok(admin) = fs::read(self.data().join("admin.json")) {
            let admin: Value = serde_json::from_slice(&admin).unwrap();
            never.extend(["api_key", "password"].map(|name| admin[name].as_str().unwrap().into()));
        }
        if let Ok(secret) = fs::read_to_string(self.data().join("secrets/broker")) {
            never.push(secret.trim().to_owned());
        }
        let found = never.iter().filter(|one| log.contains(one.as_str()));
        assert_eq!(found.count(), 0, "texts or secrets are in the log");
    }

    /// A tool of the command line, pointed at this Weir.
    pub(crate) fn tool(&self, args: &[&str]) -> Output {
        weir()
            .env("WEIR_DATA", self.data())
            .args(args)
            .output()
            .unwrap()
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if !std::thread::panicking() {
            self.nothing_leaked();
        }
    }
}

/// Sends a signal by name to a process of ours.
pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(child.id().to_string())
        .status()
        .unwrap();
    assert!(sent.success());
}

/// Waits until something is so; says what it was when it never is.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(
            began.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The crate's folder, in which its tests run: one that is built in stays that of a checkout
/// that is gone where several share their builds.
fn here() -> PathBuf {
    std::env::current_dir().unwrap()
}

/// The first real comments of the sample, as they lie in the file.
pub(crate) fn sample(number: usize) -> Vec<Value> {
    let path = here().join("sample/comments.jsonl");
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .cycle()
        .take(number)
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(crate) fn text_of(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
