//! STS and IAM over the query protocol.

use crate::app::{ASSUME_ROLE, Key, TestApp, element};

#[tokio::test]
async fn the_default_identity_is_a_session_of_the_execution_role() {
    let app = TestApp::new().await;
    let answer = app.form("sts", "Action=GetCallerIdentity&Version=2011-06-15", &app.key()).await;
    assert_eq!(answer.status, 200);
    let arn = element(&answer.text(), "Arn");
    assert_eq!(arn, "arn:aws:sts::123456789012:assumed-role/ModelyardExecutionRole/modelyard");
    let answer = app
        .form("iam", "Action=GetRole&RoleName=ModelyardExecutionRole&Version=2010-05-08", &app.key())
        .await;
    assert!(answer.text().contains("<Arn>arn:aws:iam::123456789012:role/ModelyardExecutionRole</Arn>"));
    assert!(element(&answer.text(), "AssumeRolePolicyDocument").contains("sagemaker.amazonaws.com"));
}

#[tokio::test]
async fn an_assumed_role_acts_until_its_session_ends() {
    let app = TestApp::new().await;
    let key = app.assume_role("&DurationSeconds=900", &app.key()).await;
    let whoami = "Action=GetCallerIdentity&Version=2011-06-15";
    let answer = app.form("sts", whoami, &key).await;
    assert_eq!(
        element(&answer.text(), "Arn"),
        "arn:aws:sts::123456789012:assumed-role/ModelyardExecutionRole/me"
    );

    let without_token = Key { session_token: None, ..key.clone() };
    let answer = app.form("sts", whoami, &without_token).await;
    assert_eq!(
        (answer.status.as_u16(), element(&answer.text(), "Code")),
        (403, "InvalidClientTokenId".into())
    );

    app.clock.advance(901_000);
    let answer = app.form("sts", whoami, &key).await;
    assert_eq!((answer.status.as_u16(), element(&answer.text(), "Code")), (403, "ExpiredToken".into()));
}

/// The tags of the session that a key is of.
fn tags_of(app: &TestApp, key: &Key) -> Vec<(String, String)> {
    let token = key.session_token.as_deref().unwrap();
    let credential = app.app.identity.sessions().verify(&key.access_key_id, token, app.clock.now_ms());
    credential.ok().unwrap().session_tags.tags.into_iter().collect()
}

#[tokio::test]
async fn transitive_tags_go_on_from_session_to_session() {
    let app = TestApp::new().await;
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let tags =
        "&Tags.member.1.Key=Tenant&Tags.member.1.Value=blue&Tags.member.2.Key=team&Tags.member.2.Value=a";
    let first = app.assume_role(&format!("{tags}&TransitiveTagKeys.member.1=tenant"), &app.key()).await;
    assert_eq!(tags_of(&app, &first), [pair("Tenant", "blue"), pair("team", "a")]);
    let second = app.assume_role("", &first).await;
    assert_eq!(tags_of(&app, &second), [pair("Tenant", "blue")]);
    let third = app.assume_role("&Tags.member.1.Key=team&Tags.member.1.Value=b", &second).await;
    assert_eq!(tags_of(&app, &third), [pair("Tenant", "blue"), pair("team", "b")]);

    let many: String =
        (1..=50).map(|at| format!("&Tags.member.{at}.Key=k{at}&Tags.member.{at}.Value=v")).collect();
    for (asked, text) in [
        ("&Tags.member.1.Key=tenant&Tags.member.1.Value=red", "conflicts with a transitive tag key"),
        ("&TransitiveTagKeys.member.1=team", "must be included in the requested tags"),
        (
            "&Tags.member.1.Key=a&Tags.member.1.Value=1&Tags.member.2.Key=A&Tags.member.2.Value=2",
            "case insensitive",
        ),
        ("&Tags.member.1.Key=aws:x&Tags.member.1.Value=1", "reserved"),
        (many.as_str(), "at most 50 tags"),
    ] {
        let answer = app.form("sts", &format!("{ASSUME_ROLE}{asked}"), &third).await;
        let code = element(&answer.text(), "Code");
        assert_eq!((answer.status.as_u16(), code.as_str()), (400, "ValidationError"), "{asked}");
        assert!(element(&answer.text(), "Message").contains(text), "{}", answer.text());
    }
}

#[tokio::test]
async fn get_session_token_keeps_the_identity() {
    let app = TestApp::new().await;
    let answer = app.form("sts", "Action=GetSessionToken&Version=2011-06-15", &app.key()).await;
    let xml = answer.text();
    assert!(element(&xml, "AccessKeyId").starts_with("ASIA"));
}

#[tokio::test]
async fn roles_are_created_once_and_carry_policies() {
    let app = TestApp::new().await;
    let trust = "%7B%22Statement%22%3A%5B%5D%7D";
    let create =
        format!("Action=CreateRole&Version=2010-05-08&RoleName=Mine&AssumeRolePolicyDocument={trust}");
    let answer = app.form("iam", &create, &app.key()).await;
    assert_eq!(element(&answer.text(), "Arn"), "arn:aws:iam::123456789012:role/Mine");
    let answer = app.form("iam", &create, &app.key()).await;
    assert_eq!(
        (answer.status.as_u16(), element(&answer.text(), "Code")),
        (409, "EntityAlreadyExists".into())
    );

    let attach = "Action=AttachRolePolicy&Version=2010-05-08&RoleName=Mine&PolicyArn=arn%3Aaws%3Aiam%3A%3Aaws%3Apolicy%2FAmazonSageMakerFullAccess";
    assert_eq!(app.form("iam", attach, &app.key()).await.status, 200);
    let list = "Action=ListAttachedRolePolicies&Version=2010-05-08&RoleName=Mine";
    let answer = app.form("iam", list, &app.key()).await;
    assert_eq!(element(&answer.text(), "PolicyName"), "AmazonSageMakerFullAccess");

    let answer = app.form("iam", "Action=GetRole&Version=2010-05-08&RoleName=None", &app.key()).await;
    assert_eq!((answer.status.as_u16(), element(&answer.text(), "Code")), (404, "NoSuchEntity".into()));
}

#[tokio::test]
async fn a_role_is_simulated_within_its_account() {
    let app = TestApp::new().await;
    let form = "Action=SimulatePrincipalPolicy&Version=2010-05-08&ActionNames.member.1=s3%3APutObject\
                &PolicySourceArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2FModelyardExecutionRole\
                &ResourceArns.member.1=arn%3Aaws%3As3%3A%3A%3Ab%2F*";
    let answer = app.form("iam", form, &app.key()).await;
    assert_eq!(element(&answer.text(), "EvalDecision"), "allowed");
    let foreign = form.replace("123456789012", "999999999999");
    assert!(app.form("iam", &foreign, &app.key()).await.status.is_client_error());
}
