//! Mistakes of the settings: said clearly, all at once, before or at the first request.

use rstest::rstest;
use testbed::Spec;

use crate::place::{Place, fresh_name};
use crate::proxy::{Plan, Proxy};

#[tokio::test]
async fn wrong_settings_are_told_all_at_once_and_nothing_is_requested() {
    let Some(mut place) = Place::new().await else { return };
    place.fill(&Spec { objects: 3, ..Spec::default() }).await;
    let before = place.everything().await;
    let proxy = Proxy::start(&place.server.endpoint, Plan::default()).await;
    let endpoint = proxy.endpoint();
    let settings = [
        ("AWS_ENDPOINT_URL_S3", endpoint.as_str()),
        ("ROLLUP_DRYRUN", "true"),
        ("ROLLUP_LEVEL", "week"),
        ("ROLLUP_OVERWRITE", "true"),
        ("ROLLUP_DESTINATION", ""),
    ];
    let pass = place.pass(&settings).await;
    assert_eq!(pass.code, Some(2), "{pass:#?}");
    let told = ["did you mean ROLLUP_DRY_RUN?", "ROLLUP_LEVEL", "ROLLUP_KEEP", "ROLLUP_DESTINATION"];
    for sentence in told {
        assert!(pass.output.contains(sentence), "{sentence} is not in {}", pass.output);
    }
    assert_eq!(proxy.connections(), 0);
    assert_eq!(place.everything().await, before);
}

#[rstest]
#[case::of_the_logs("ROLLUP_SOURCE")]
#[case::of_the_rollups("ROLLUP_DESTINATION")]
#[tokio::test]
async fn a_bucket_that_is_not_there_is_named(#[case] setting: &str) {
    let Some(mut place) = Place::new().await else { return };
    place.fill(&Spec { objects: 3, ..Spec::default() }).await;
    let before = place.everything().await;
    let missing = fresh_name("missing");
    let pass = place.pass(&[(setting, &format!("s3://{missing}/x/"))]).await;
    assert_eq!(pass.code, Some(3), "{pass:#?}");
    let error = pass.report()["error"].to_string();
    assert!(error.contains(&missing) && error.contains("check the bucket's name"), "{error}");
    assert_eq!(place.everything().await, before);
}

#[rstest]
#[case::unknown_key("AWS_ACCESS_KEY_ID", "AKIDOFNOBODYATALL000")]
#[case::wrong_secret("AWS_SECRET_ACCESS_KEY", "not-the-secret-of-this-server")]
#[tokio::test]
async fn credentials_that_the_server_does_not_know_are_told(#[case] variable: &str, #[case] value: &str) {
    let Some(mut place) = Place::new().await else { return };
    place.fill(&Spec { objects: 3, ..Spec::default() }).await;
    let before = place.everything().await;
    let pass = place.pass(&[(variable, value)]).await;
    assert_eq!(pass.code, Some(3), "{pass:#?}");
    let error = pass.report()["error"].to_string();
    assert!(error.contains("credentials"), "{error}");
    assert_eq!(place.everything().await, before);
}
