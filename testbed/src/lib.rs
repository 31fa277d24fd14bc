//! An S3 server in memory, for tests, benchmarks and a demo.
//!
//! It answers as Amazon S3 documents it: bytewise listings in pages, conditional requests, multipart uploads with
//! copied parts and full-object checksums, versioned buckets. It serves the SDK in process
//! ([`Testbed::http_client`]) and any client over HTTP ([`Testbed::serve`]), and it can fail, wait or forget an
//! answer at any request. Everything waits on tokio's clock, so a paused clock makes latency free.
//!
//! ```
//! use testbed::{FaultKind, Operation, Testbed, When};
//!
//! let bed = Testbed::default();
//! bed.create_bucket("logs");
//! bed.put("logs", "web/2026-01-31-10-11-12-0123456789ABCDEF", "one line\n");
//! let fault = bed.fault(When::operation(Operation::GetObject).skip(1), FaultKind::Status(503, "SlowDown"));
//! let client = bed.http_client(); // for `aws_sdk_s3::Config`, with path-style addresses
//! # drop(client);
//! assert_eq!(bed.keys_under("logs", "web/").len(), 1);
//! assert_eq!(fault.hits(), 0);
//! ```
//!
//! A [`Generator`] writes access logs with all their oddities, a [`Ledger`] proves that no line is lost or doubled:
//!
//! ```
//! use testbed::{Generator, Ledger, Spec, Testbed};
//!
//! let bed = Testbed::default();
//! bed.create_bucket("logs");
//! let mut ledger = Ledger::new();
//! for (key, body) in Generator::new(1).objects(&Spec { prefix: "raw/".to_owned(), ..Spec::default() }) {
//!     ledger.put("logs", &key, &body);
//!     bed.put("logs", &key, body);
//! }
//! // … a pass rolls them up below `rollup/` …
//! let balance = ledger.check_testbed(&bed, ("logs", "rollup/"), ("logs", "raw/")).expect("every line is there once");
//! assert_eq!(balance.lines, ledger.lines());
//! ```

mod answer;
mod backend;
mod checksums;
mod connector;
mod fault;
mod front;
mod generator;
mod ledger;
mod limits;
mod listing;
mod multipart;
mod object;
mod policy;
mod request;
mod rope;
mod schedule;
mod server;
mod settings;
mod store;
mod testbed;
mod world;

pub use fault::{Fault, FaultKind, Gate, Moment, When};
pub use generator::{Format, Generator, Spec};
pub use ledger::{Balance, Imbalance, Ledger};
pub use object::{Checksum, Object};
pub use policy::Policy;
pub use request::{Operation, Recorded};
pub use rope::Rope;
pub use schedule::{Schedule, Turn, Waiting};
pub use server::Server;
pub use settings::{BucketOptions, Limits, Quirks, Settings};
pub use testbed::Testbed;

/// The secret key that goes with every access key, unless the settings name another.
pub const SECRET_KEY: &str = "secret";
