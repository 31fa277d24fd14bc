//! Credentials of `AssumeRole`, as S3-compatible servers give them for their own keys: to be narrowed by a policy, and to
//! be handed on for a token.

use aws_sdk_sts::Client;
use aws_sdk_sts::config::BehaviorVersion;
use aws_sdk_sts::types::Credentials;

use crate::Failure;
use crate::arguments::Arguments;
use crate::bucket::{Environment, failed, http_client};

/// The server that the environment names, as an STS.
pub(crate) fn client() -> Result<Client, Failure> {
    let environment = Environment::read()?;
    let config = aws_sdk_sts::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(environment.region)
        .endpoint_url(environment.endpoint)
        .credentials_provider(environment.credentials)
        .http_client(http_client());
    Ok(Client::from_conf(config.build()))
}

/// Credentials of the environment's own rights, as far as a policy in JSON leaves them.
pub(crate) async fn assume(client: &Client, policy: Option<&str>) -> Result<Credentials, Failure> {
    let request = client
        .assume_role()
        .role_arn("arn:aws:iam::111122223333:role/testbed")
        .role_session_name("testbed")
        .set_policy(policy.map(str::to_owned));
    let answer = request.send().await.map_err(|error| failed("no role can be assumed", &error))?;
    answer.credentials.ok_or_else(|| Failure::Failed(String::from("the answer of AssumeRole has no credentials")))
}

/// Prints them one variable a line.
pub(crate) async fn print(arguments: &Arguments) -> Result<(), Failure> {
    let credentials = assume(&client()?, arguments.text("policy")).await?;
    println!("AWS_ACCESS_KEY_ID={}", credentials.access_key_id);
    println!("AWS_SECRET_ACCESS_KEY={}", credentials.secret_access_key);
    println!("AWS_SESSION_TOKEN={}", credentials.session_token);
    Ok(())
}
