//! The binary against a real S3 server, as a user runs it: settings in the environment, an exit code, a report.
//!
//! `tests/real-servers` starts servers and runs this against each. For a server of your own: `REAL_S3_ENDPOINT`,
//! `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (and `AWS_REGION`, `REAL_S3_NAME`, `SEED`, `KILLS`, `REAL_S3_PID_FILE`).
//! Every test makes buckets of its own and leaves them behind. Without an endpoint every test says so and passes.

mod capabilities;
mod everyday;
mod interrupted;
mod large;
mod overlap;
mod place;
mod program;
mod proxy;
mod refused;
mod violence;
