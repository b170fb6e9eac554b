//! A small signed client of the server's own API, for the client commands.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::config::variable;
use crate::data_dir::Connection;

/// Speaks JSON 1.1 to the server of a data directory, or to `AWS_ENDPOINT_URL` when that is set.
pub struct Client {
    connection: Connection,
    session_token: Option<String>,
}

/// An error answer of the server.
#[derive(Debug)]
pub struct Failure {
    /// Code, for example `ValidationException`; empty when the server was not reached.
    pub code: String,
    /// Text for people.
    pub message: String,
}

impl From<Failure> for String {
    fn from(failure: Failure) -> String {
        failure.message
    }
}

fn unreached(message: String) -> Failure {
    Failure { code: String::new(), message }
}

impl Client {
    /// Takes endpoint and keys from the environment where it is set for AWS tools, else from the data directory.
    ///
    /// # Errors
    /// A text that says what to do.
    pub fn open(data_dir: &Path) -> Result<Client, String> {
        let environment =
            (variable("AWS_ENDPOINT_URL"), variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
        if let (Some(endpoint), Some(access_key_id), Some(secret_access_key)) = environment {
            let connection = Connection {
                endpoint,
                region: variable("AWS_DEFAULT_REGION")
                    .or_else(|| variable("AWS_REGION"))
                    .unwrap_or_else(|| "us-east-1".into()),
                account: String::new(),
                access_key_id,
                secret_access_key,
                ca_bundle: variable("AWS_CA_BUNDLE").map(Into::into),
            };
            return Ok(Client { connection, session_token: variable("AWS_SESSION_TOKEN") });
        }
        Ok(Client { connection: Connection::read(data_dir)?, session_token: None })
    }

    /// Calls an operation by its target, for example `SageMaker.ListTrainingJobs`.
    ///
    /// # Errors
    /// The server's error, or why it was not reached.
    pub async fn call(&self, target: &str, input: &Value) -> Result<Value, Failure> {
        let service = match target.split('.').next() {
            Some("Modelyard") => "modelyard",
            Some("Logs_20140328") => "logs",
            Some("AWSGlue") => "glue",
            Some("AnyScaleFrontendService") => "application-autoscaling",
            Some("GraniteServiceVersion20100801") => "monitoring",
            _ => "sagemaker",
        };
        let body = Bytes::from(input.to_string());
        let mut request = Request::post("/")
            .header("host", self.authority()?)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", target)
            .body(())
            .map_err(|error| unreached(error.to_string()))?;
        let signer = wire::sigv4::Signer {
            access_key_id: &self.connection.access_key_id,
            secret_access_key: &self.connection.secret_access_key,
            session_token: self.session_token.as_deref(),
            region: &self.connection.region,
            service,
        };
        signer.sign(&mut request, &body, store::Clock::system().now_ms());
        let (status, bytes) = self.send(request.map(|()| Full::new(body))).await?;
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        let code = answer["__type"].as_str().unwrap_or_default().to_owned();
        let text = answer["message"].as_str().or_else(|| answer["Message"].as_str());
        let message = text.map_or_else(|| format!("the server answered {status}"), str::to_owned);
        Err(Failure { code, message })
    }

    /// All pages of a List operation: the elements of `member`.
    ///
    /// # Errors
    /// The server's error, or why it was not reached.
    pub async fn list(&self, target: &str, mut input: Value, member: &str) -> Result<Vec<Value>, Failure> {
        let mut all = Vec::new();
        loop {
            let mut page = self.call(target, &input).await?;
            if let Some(rows) = page[member].as_array_mut() {
                all.append(rows);
            }
            match page["NextToken"].take() {
                Value::Null => return Ok(all),
                token => input["NextToken"] = token,
            }
        }
    }

    fn authority(&self) -> Result<String, Failure> {
        Ok(self.uri()?.authority().map(ToString::to_string).unwrap_or_default())
    }

    fn uri(&self) -> Result<Uri, Failure> {
        let endpoint = &self.connection.endpoint;
        endpoint.parse().map_err(|_| unreached(format!("{endpoint:?} is not an endpoint URL")))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(http::StatusCode, Bytes), Failure> {
        let uri = self.uri()?;
        let endpoint = &self.connection.endpoint;
        let secure = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let failed = |error: &dyn std::fmt::Display| {
            unreached(format!(
                "the server at {endpoint} cannot be reached ({error}); is `modelyard serve` running?"
            ))
        };
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|error| failed(&error))?;
        let exchanged = if secure {
            let tls = remote::tls::client_config(self.connection.ca_bundle.as_deref()).map_err(unreached)?;
            let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
            let name = ServerName::try_from(host).map_err(|error| failed(&error))?;
            let stream = connector.connect(name, stream).await.map_err(|error| failed(&error))?;
            exchange(TokioIo::new(stream), request).await
        } else {
            exchange(TokioIo::new(stream), request).await
        };
        exchanged.map_err(|error| failed(&error))
    }
}

async fn exchange<I>(io: I, request: Request<Full<Bytes>>) -> Result<(http::StatusCode, Bytes), hyper::Error>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    // The connection ends with the request; its error is the request's.
    let driving = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await?.to_bytes();
    driving.abort();
    Ok((parts.status, bytes))
}
