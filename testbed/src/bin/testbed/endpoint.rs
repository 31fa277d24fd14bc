//! Credentials for a token: `AssumeRoleWithWebIdentity` as STS answers it, and EKS Pod Identity's agent.
//!
//! What it gives was assumed on the server behind it, which enforces it; only the expiry is told earlier, so that a
//! short pass asks again.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_sts::Client;
use aws_sdk_sts::types::Credentials;
use bytes::Bytes;
use chrono::{SecondsFormat, TimeDelta, Utc};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::arguments::Arguments;
use crate::door::{Door, POD_IDENTITY, Shown, WEB_IDENTITY};
use crate::{Failure, role, until_stopped};

/// Bytes of a request at most; tokens are some 1 to 2 KB.
const REQUEST: usize = 64 << 10;

struct Endpoint {
    door: Mutex<Door>,
    roles: Client,
    expire: TimeDelta,
}

/// Answers until it is stopped, one printed line a request.
pub(crate) async fn serve(arguments: &Arguments) -> Result<(), Failure> {
    let address = arguments.text("address").unwrap_or("0.0.0.0");
    let port: u16 = arguments.number("port", 8080)?;
    let endpoint = Arc::new(Endpoint {
        door: Mutex::new(Door::new(arguments.needed("namespace")?)),
        roles: role::client()?,
        expire: TimeDelta::seconds(arguments.number("expire-s", 900_u32)?.into()),
    });
    let listener = TcpListener::bind((address, port)).await;
    let listener = listener.map_err(|error| Failure::Failed(format!("cannot listen on {address}:{port}: {error}")))?;
    println!("listening on {address}:{port}");
    tokio::select! {
        () = accept(&listener, &endpoint) => Ok(()),
        stopped = until_stopped() => stopped,
    }
}

async fn accept(listener: &TcpListener, endpoint: &Arc<Endpoint>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let endpoint = Arc::clone(endpoint);
        let service = service_fn(move |request| {
            let endpoint = Arc::clone(&endpoint);
            async move { Ok::<_, Infallible>(endpoint.answer(request).await) }
        });
        // An error is a connection that the client broke.
        tokio::spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(stream), service).await });
    }
}

fn respond(status: StatusCode, kind: &str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    if let Ok(kind) = kind.parse() {
        response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    }
    response
}

fn refused(code: &str, why: &str) -> Response<Full<Bytes>> {
    println!("refused: {why}");
    let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{why}</Message></Error>");
    let text = format!("<ErrorResponse>{error}<RequestId>testbed</RequestId></ErrorResponse>");
    respond(StatusCode::BAD_REQUEST, "text/xml", text)
}

/// A field of an HTML form, where it is there.
fn field(form: &str, name: &str) -> Option<String> {
    let value = form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?.replace('+', " ");
    Some(percent_encoding::percent_decode_str(&value).decode_utf8_lossy().into_owned())
}

impl Endpoint {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() == Method::GET {
            return match request.uri().path() {
                "/healthz" => respond(StatusCode::OK, "text/plain", String::new()),
                "/v1/credentials" => self.pod_identity(&request).await,
                _ => respond(StatusCode::NOT_FOUND, "text/plain", String::new()),
            };
        }
        match Limited::new(request.into_body(), REQUEST).collect().await {
            Ok(body) => self.web_identity(&String::from_utf8_lossy(&body.to_bytes())).await,
            Err(error) => refused("ValidationError", &error.to_string()),
        }
    }

    async fn web_identity(&self, form: &str) -> Response<Full<Bytes>> {
        let action = field(form, "Action").unwrap_or_default();
        if action != "AssumeRoleWithWebIdentity" {
            return refused("InvalidAction", &format!("the action is {action:?}"));
        }
        let Some(role) = field(form, "RoleArn").filter(|arn| arn.starts_with("arn:aws")) else {
            return refused("ValidationError", "there is no role ARN");
        };
        let token = field(form, "WebIdentityToken").unwrap_or_default();
        let (given, expiration) = match self.give(&token, WEB_IDENTITY, &role).await {
            Ok(given) => given,
            Err(why) => return refused("InvalidIdentityToken", &why),
        };
        let credentials = format!(
            "<AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken>\
             <Expiration>{expiration}</Expiration>",
            given.access_key_id, given.secret_access_key, given.session_token
        );
        let result = format!(
            "<Credentials>{credentials}</Credentials><AssumedRoleUser><Arn>{role}</Arn>\
             <AssumedRoleId>TESTBED:session</AssumedRoleId></AssumedRoleUser>"
        );
        let text = format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult>{result}</AssumeRoleWithWebIdentityResult>\
             <ResponseMetadata><RequestId>testbed</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>"
        );
        respond(StatusCode::OK, "text/xml", text)
    }

    async fn pod_identity(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let token = request.headers().get(hyper::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        match self.give(token.unwrap_or_default(), POD_IDENTITY, "a pod identity").await {
            Ok((given, expiration)) => {
                let answer = serde_json::json!({
                    "AccessKeyId": given.access_key_id,
                    "SecretAccessKey": given.secret_access_key,
                    "Token": given.session_token,
                    "Expiration": expiration,
                });
                respond(StatusCode::OK, "application/json", answer.to_string())
            }
            Err(why) => {
                println!("refused: {why}");
                respond(StatusCode::FORBIDDEN, "text/plain", why)
            }
        }
    }

    /// Credentials, and when they are said to expire.
    async fn give(&self, token: &str, audience: &str, role: &str) -> Result<(Credentials, String), String> {
        let now = Utc::now();
        let Shown { subject, number, first } =
            self.door.lock().unwrap_or_else(PoisonError::into_inner).show(token, audience, now)?;
        let given = role::assume(&self.roles, None).await.map_err(|failure| format!("{failure:?}"))?;
        let expiration = (now + self.expire).to_rfc3339_opts(SecondsFormat::Secs, true);
        let seen = if first { "for the first time" } else { "again" };
        println!("token {number} {seen}, of {subject} for {role}: credentials until {expiration}");
        Ok((given, expiration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_form_are_decoded_and_not_taken_for_one_another() {
        let form = "Action=AssumeRole&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fa+b&RoleArnX=no";
        assert_eq!(field(form, "RoleArn").as_deref(), Some("arn:aws:iam::1:role/a b"));
        assert_eq!(field(form, "Role"), None);
    }
}
