//! A bucket in memory, settings as a user writes them, and a pass over it.

use std::ffi::OsString;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use s3_log_rollup::config::Config;
use s3_log_rollup::pass::{self, Ended, Stores, Surroundings};
use testbed::{Generator, Ledger, Settings, Spec, Testbed};
use tokio::sync::watch;

/// The bucket of the log objects.
pub(crate) const LOGS: &str = "acme-logs";
/// The bucket of the rollups.
pub(crate) const OUT: &str = "acme-rollups";

/// A testbed with both buckets, and a ledger of what was ever put.
pub(crate) struct Bench {
    pub(crate) bed: Testbed,
    pub(crate) ledger: Ledger,
    pub(crate) generator: Generator,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let bed = Testbed::new(settings);
        bed.create_bucket(LOGS);
        bed.create_bucket(OUT);
        Self { bed, ledger: Ledger::new(), generator: Generator::new(1) }
    }

    /// The same once more, with no request sent yet: what is done to the one does not show in the other.
    pub(crate) fn copy(&self) -> Self {
        Self { bed: self.bed.copy(), ledger: self.ledger.clone(), generator: self.generator.clone() }
    }

    /// Puts generated log objects under `logs/`.
    pub(crate) fn fill(&mut self, spec: &Spec) -> Vec<String> {
        let objects: Vec<_> = self.generator.objects(spec).collect();
        let put = |(key, body): (String, _)| {
            self.ledger.put(LOGS, &key, &body);
            self.bed.put(LOGS, &key, body);
            key
        };
        objects.into_iter().map(put).collect()
    }

    /// One log object with these bytes.
    pub(crate) fn log(&mut self, key: &str, body: &str) {
        self.ledger.put(LOGS, key, &body.to_owned().into());
        self.bed.put(LOGS, key, body.to_owned());
    }

    /// One pass with these settings beside source and destination.
    pub(crate) async fn pass(&self, settings: &[(&str, &str)]) -> Ended {
        let (_stop, stopped) = watch::channel(false);
        self.pass_until(settings, stopped).await
    }

    /// One pass that a SIGTERM may end.
    pub(crate) async fn pass_until(&self, settings: &[(&str, &str)], stop: watch::Receiver<bool>) -> Ended {
        let config = config(settings);
        let surroundings = Surroundings { now: self.bed.now(), seed: fastrand::u64(..), stop, progress: None };
        pass::run(&config, Stores::open(&config, &self.sdk()), surroundings).await
    }

    /// One pass whose requests go through another client than the testbed's own.
    pub(crate) async fn pass_through(&self, client: SharedHttpClient) -> Ended {
        let (_stop, stop) = watch::channel(false);
        let config = config(&[]);
        let sdk = self.sdk().into_builder().http_client(client).build();
        let surroundings = Surroundings { now: self.bed.now(), seed: fastrand::u64(..), stop, progress: None };
        pass::run(&config, Stores::open(&config, &sdk), surroundings).await
    }

    fn sdk(&self) -> SdkConfig {
        let credentials = Credentials::new("AKIATESTBED", testbed::SECRET_KEY, None, None, "test");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .endpoint_url("http://testbed.local")
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(self.bed.http_client())
            .sleep_impl(aws_smithy_async::rt::sleep::SharedAsyncSleep::new(
                aws_smithy_async::rt::sleep::TokioSleep::new(),
            ))
            .time_source(aws_smithy_async::time::SharedTimeSource::new(aws_smithy_async::time::SystemTimeSource::new()))
            .build()
    }

    /// Every line is there exactly once; nothing is left of the work: no manifest, no upload.
    #[track_caller]
    pub(crate) fn balanced(&self) {
        self.once();
        let leftovers: Vec<_> = self.bed.keys_under(OUT, "rollup/_");
        assert!(leftovers.is_empty(), "left behind: {leftovers:?}");
        assert!(self.bed.uploads(OUT).is_empty(), "uploads left behind: {:?}", self.bed.uploads(OUT));
    }

    /// Every line is there exactly once.
    #[track_caller]
    pub(crate) fn once(&self) {
        if let Err(imbalance) = self.ledger.check_testbed(&self.bed, (OUT, "rollup/"), (LOGS, "logs/")) {
            panic!("{imbalance}");
        }
    }

    /// The names of the rollups.
    pub(crate) fn rollups(&self) -> Vec<String> {
        let keys = self.bed.keys_under(OUT, "rollup/");
        let names = keys.iter().map(|key| key["rollup/".len()..].to_owned());
        names.filter(|name| !name.starts_with('_')).collect()
    }

    pub(crate) fn text(&self, rollup: &str) -> String {
        let object = self.bed.object(OUT, &format!("rollup/{rollup}")).expect("the rollup is there");
        String::from_utf8(object.bytes().to_vec()).expect("UTF-8")
    }
}

/// The settings as a user writes them.
pub(crate) fn config(settings: &[(&str, &str)]) -> Config {
    let mut environment = vec![
        ("ROLLUP_SOURCE", format!("s3://{LOGS}/logs/")),
        ("ROLLUP_DESTINATION", format!("s3://{OUT}/rollup/")),
        ("ROLLUP_FORCE_PATH_STYLE", String::from("true")),
    ];
    environment.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let environment = environment.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Config::from_env(environment).expect("the settings are good")
}

/// A pass that must have done everything.
#[track_caller]
pub(crate) fn done(ended: &Ended) {
    assert!(ended.error.is_none(), "{:?}", ended.error);
    assert_eq!(ended.exit_code(), 0, "{:#?}", ended.report);
}
