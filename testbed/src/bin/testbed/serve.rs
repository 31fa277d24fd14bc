//! The server in memory on a port, until it is stopped.

use std::time::Duration;

use testbed::{Generator, Limits, SECRET_KEY, Settings, Spec, Testbed};

use crate::arguments::Arguments;
use crate::{Failure, until_stopped};

/// Where generated log objects stand: a few folders and days below it.
const RAW: &str = "raw/";

/// Serves and says where.
pub(crate) async fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let address = arguments.text("address").unwrap_or("127.0.0.1");
    let port: u16 = arguments.number("port", 0)?;
    let objects: usize = arguments.number("fill", 0)?;
    let buckets: Vec<_> = arguments.text("buckets").unwrap_or("logs").split(',').collect();
    let bed = Testbed::new(Settings {
        keep_requests: false,
        latency: Duration::from_millis(arguments.number("latency-ms", 0)?),
        limits: arguments.has("s3-limits").then(Limits::s3),
        ..Settings::default()
    });
    for bucket in &buckets {
        bed.create_bucket(bucket);
    }
    if objects > 0 {
        let spec = Spec { prefix: RAW.to_owned(), groups: 4, days: 5, objects, ..Spec::default() };
        Generator::new(1).fill(&bed, buckets[0], &spec);
    }
    let server = bed.serve((address, port)).await;
    let server = server.map_err(|error| Failure::Failed(format!("cannot listen on {address}:{port}: {error}")))?;
    println!("AWS_ENDPOINT_URL={} AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY={SECRET_KEY}", server.url());
    println!("buckets: {}; path-style addresses", buckets.join(", "));
    if objects > 0 {
        println!("log objects: {objects} at s3://{}/{RAW}", buckets[0]);
    }
    until_stopped().await
}
