//! STS and IAM over the query protocol.

use crate::app::{Key, TestApp};

/// The text of the first element with this name.
fn element(xml: &str, name: &str) -> String {
    let start =
        xml.find(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name} in {xml}")) + name.len() + 2;
    let end = xml[start..].find(&format!("</{name}>")).unwrap();
    xml[start..start + end].to_owned()
}

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
    let form = "Action=AssumeRole&Version=2011-06-15&RoleSessionName=me&DurationSeconds=900\
                &RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2FModelyardExecutionRole";
    let answer = app.form("sts", form, &app.key()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let xml = answer.text();
    let key = Key {
        access_key_id: element(&xml, "AccessKeyId"),
        secret_access_key: element(&xml, "SecretAccessKey"),
        session_token: Some(element(&xml, "SessionToken")),
    };
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
