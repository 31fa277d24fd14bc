//! Runs the binary as a container would: nothing but environment variables goes in.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::place::{DESTINATION, Place, SOURCE, fresh_name};

/// More than any pass takes: one that hangs must not hang the tests.
const LIMIT: Duration = Duration::from_mins(5);

/// What came out.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(crate) code: Option<i32>,
    /// The termination message; the report, unless the settings were refused.
    pub(crate) message: String,
    pub(crate) output: String,
}

impl Pass {
    /// The report.
    #[track_caller]
    pub(crate) fn report(&self) -> Value {
        serde_json::from_str(&self.message).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// A figure of the report, such as `/rolled_up/objects`.
    #[track_caller]
    pub(crate) fn figure(&self, pointer: &str) -> u64 {
        let report = self.report();
        report.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer}: {report:#}"))
    }

    /// Everything was done.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.message, self.output);
        self
    }
}

/// A program that is set up; its termination message goes into a file of its own.
pub(crate) struct Program {
    pub(crate) command: Command,
    termination_log: PathBuf,
}

impl Place {
    /// The program with these variables beside those that it needs.
    pub(crate) fn program(&self, settings: &[(&str, &str)]) -> Program {
        let termination_log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(fresh_name("termination"));
        fs::write(&termination_log, "").expect("the target folder can be written to");
        let mut command = Command::new(env!("CARGO_BIN_EXE_s3-log-rollup"));
        let server = &self.server;
        command
            .env_clear()
            .env("AWS_ENDPOINT_URL_S3", &server.endpoint)
            .env("AWS_ACCESS_KEY_ID", &server.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &server.secret_key)
            .env("AWS_REGION", &server.region)
            .env("ROLLUP_SOURCE", format!("s3://{}/{SOURCE}", self.logs))
            .env("ROLLUP_DESTINATION", format!("s3://{}/{DESTINATION}", self.rollups))
            .env("ROLLUP_FORCE_PATH_STYLE", "true")
            .env("ROLLUP_LOG_FORMAT", "bunyan")
            .env("ROLLUP_TERMINATION_LOG", &termination_log)
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Program { command, termination_log }
    }

    /// One pass from start to end.
    pub(crate) async fn pass(&self, settings: &[(&str, &str)]) -> Pass {
        let mut program = self.program(settings);
        let ended = timeout(LIMIT, program.command.output()).await.expect("the program ends in time");
        let ended = ended.expect("the program runs");
        let message = program.message();
        let output = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        Pass { code: ended.status.code(), message, output }
    }
}

impl Program {
    fn message(&self) -> String {
        fs::read_to_string(&self.termination_log).expect("it was created")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // What stays behind lies in the target folder.
        let _ = fs::remove_file(&self.termination_log);
    }
}
