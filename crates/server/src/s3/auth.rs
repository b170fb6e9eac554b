//! Who calls S3: keys for the signature check of `s3s`, then account, session token and authorization for each operation.

use std::sync::Arc;

use http::Request;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::path::S3Path;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, s3_error};
use wire::{Body, Caller, Credential, CredentialProblem};

tokio::task_local! {
    /// The session token of the request under way: `s3s` asks for a secret by key id alone.
    pub static SESSION_TOKEN: Option<String>;
}

/// The session token of a request, from header or query.
pub fn session_token(request: &Request<Body>) -> Option<String> {
    if let Some(token) = request.headers().get("x-amz-security-token") {
        return token.to_str().ok().map(str::to_owned);
    }
    let query = request.uri().query()?;
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let named = name.eq_ignore_ascii_case("x-amz-security-token");
        named.then(|| percent_decoded(value))
    })
}

/// A text of a query with its escapes resolved.
pub fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let pair = if byte == b'%' { rest.clone().next().zip(rest.clone().nth(1)) } else { None };
        let digit = |byte: u8| (byte as char).to_digit(16);
        match pair.and_then(|(high, low)| Some(digit(high)? * 16 + digit(low)?)) {
            Some(decoded) => {
                bytes.push(decoded as u8);
                rest.nth(1);
            }
            None => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn find(credentials: &dyn wire::Credentials, access_key_id: &str) -> S3Result<Arc<Credential>> {
    let token = SESSION_TOKEN.try_with(Clone::clone).ok().flatten();
    credentials.find(access_key_id, token.as_deref()).await.map_err(|problem| match problem {
        CredentialProblem::Unknown => {
            s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records.")
        }
        CredentialProblem::Expired => s3_error!(ExpiredToken, "The provided token has expired."),
        CredentialProblem::InvalidToken => {
            s3_error!(InvalidToken, "The provided token is malformed or otherwise invalid.")
        }
        CredentialProblem::Unavailable => {
            s3_error!(ServiceUnavailable, "The access key could not be looked up.")
        }
    })
}

/// Secrets for the signature check.
pub struct Keys {
    /// Where keys are looked up.
    pub credentials: Arc<dyn wire::Credentials>,
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        Ok(SecretKey::from(&*find(self.credentials.as_ref(), access_key).await?.secret_access_key))
    }
}

/// The account behind a request, in its extensions once the gate was passed.
#[derive(Clone)]
pub struct Owner(pub String);

/// The account behind a request.
pub fn account<T>(request: &S3Request<T>) -> S3Result<String> {
    let owner = request.extensions.get::<Owner>();
    owner.map(|owner| owner.0.clone()).ok_or_else(|| s3_error!(AccessDenied, "Access Denied"))
}

/// Lets signed and authorized requests through to operations that are done.
pub struct Gate {
    /// Where keys are looked up.
    pub credentials: Arc<dyn wire::Credentials>,
    /// Decides who may do what.
    pub authorize: Arc<dyn wire::Authorize>,
    /// Region of the server.
    pub region: String,
}

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let access_key_id = match cx.credentials() {
            Some(credentials) => credentials.access_key.clone(),
            None => return Err(s3_error!(AccessDenied, "Access Denied")),
        };
        let credential = find(self.credentials.as_ref(), &access_key_id).await?;
        let operation = cx.s3_op().name().to_owned();
        if !super::is_implemented(&operation) {
            let text =
                format!("Modelyard does not implement S3 {operation} yet; docs/s3.md lists what it does.");
            let mut error = S3Error::with_message(S3ErrorCode::NotImplemented, text);
            // Clients repeat a 501 with pauses; nothing would change.
            error.set_status_code(http::StatusCode::BAD_REQUEST);
            return Err(error);
        }
        for name in ["x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner"] {
            if cx.headers().get(name).is_some_and(|owner| owner.as_bytes() != credential.account.as_bytes()) {
                return Err(s3_error!(AccessDenied, "Access Denied"));
            }
        }
        let input = match cx.s3_path() {
            S3Path::Root => serde_json::json!({}),
            S3Path::Bucket { bucket } => serde_json::json!({"Bucket": bucket}),
            S3Path::Object { bucket, key } => serde_json::json!({"Bucket": bucket, "Key": key}),
        };
        let caller = Caller::of(&credential, &self.region, &access_key_id);
        let allowed = self.authorize.authorize(&caller, &format!("s3:{operation}"), &input).await;
        allowed.map_err(|error| S3Error::with_message(S3ErrorCode::AccessDenied, error.message))?;
        cx.extensions_mut().insert(Owner(credential.account.clone()));
        Ok(())
    }
}
