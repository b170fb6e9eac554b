//! First accounts, keys and roles of a data directory.

use store::identity::{AccessKey, Role};
use store::{Database, Error, Result};

use super::sessions::random_id;

/// Role that every account starts with; the default key is a session of it.
pub const EXECUTION_ROLE: &str = "ModelyardExecutionRole";

/// Setting that holds the secret behind session tokens.
pub const SESSION_SECRET: &str = "session_secret";

/// Lets SageMaker assume the role, as client-side checks of trust policies expect.
const TRUST_POLICY: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"sagemaker.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;

/// Makes the first account with its role and key when the data directory has none, and returns the key that
/// `modelyard env` prints.
///
/// # Errors
/// When the database fails.
pub async fn prepare(database: &Database, account: &str, now_ms: i64) -> Result<AccessKey> {
    let account = account.to_owned();
    database
        .write(move |session| {
            if session.setting(SESSION_SECRET)?.is_none() {
                session.put_setting(SESSION_SECRET, &random_id(64))?;
            }
            let first = match session.accounts()?.into_iter().next() {
                Some((first, _)) => first,
                None => {
                    add_account(session, &account, "default", now_ms)?;
                    account
                }
            };
            session
                .access_keys(&first)?
                .into_iter()
                .next()
                .ok_or_else(|| Error::Invalid(format!("account {first} has no access key")))
        })
        .await
}

/// Adds an account with its execution role and first key.
///
/// # Errors
/// [`Error::Exists`] when the id is taken, [`Error::Invalid`] when it is not twelve digits.
pub async fn create_account(database: &Database, id: String, name: String, now_ms: i64) -> Result<AccessKey> {
    if id.len() != 12 || !id.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::Invalid(format!("{id}: an account id is twelve digits")));
    }
    database.write(move |session| add_account(session, &id, &name, now_ms)).await
}

/// Adds a key for a user of an account.
///
/// # Errors
/// [`Error::Missing`] when the account does not exist.
pub async fn create_key(
    database: &Database,
    account: String,
    user: String,
    now_ms: i64,
) -> Result<AccessKey> {
    let plain = |character: char| character.is_ascii_alphanumeric() || "_+=,.@-".contains(character);
    if user.is_empty() || user.len() > 64 || !user.chars().all(plain) {
        return Err(Error::Invalid(format!("{user:?}: a user name is 1 to 64 letters, digits or _+=,.@-")));
    }
    database
        .write(move |session| {
            let role = session
                .role(&account, EXECUTION_ROLE)?
                .ok_or_else(|| Error::Missing { kind: "account".into(), name: account.clone() })?;
            add_key(session, &role, &user, now_ms)
        })
        .await
}

fn add_account(session: &store::Session<'_>, id: &str, name: &str, now_ms: i64) -> Result<AccessKey> {
    session.insert_account(id, name, now_ms)?;
    let role = Role {
        account: id.to_owned(),
        name: EXECUTION_ROLE.into(),
        path: "/".into(),
        role_id: format!("AROA{}", random_id(17)),
        trust_policy: TRUST_POLICY.into(),
        description: Some("Role of jobs and of the keys that Modelyard hands out".into()),
        max_session_seconds: 43_200,
        created_at: now_ms,
    };
    session.insert_role(&role)?;
    add_key(session, &role, "modelyard", now_ms)
}

fn add_key(session: &store::Session<'_>, role: &Role, user: &str, now_ms: i64) -> Result<AccessKey> {
    let key = AccessKey {
        access_key_id: format!("AKIA{}", random_id(16)),
        account: role.account.clone(),
        secret_access_key: random_id(40),
        principal_arn: format!("arn:aws:sts::{}:assumed-role/{}/{user}", role.account, role.name),
        principal_id: format!("{}:{user}", role.role_id),
        user_name: user.to_owned(),
    };
    session.insert_access_key(&key, now_ms)?;
    Ok(key)
}
