//! Gives the credentials of the AWS SDK to the S3 client.

use super::error::{CredentialsFailure, StoreError, StoreErrorKind};
use async_trait::async_trait;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_http_client::Builder as HttpClient;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_types::service_config::ServiceConfigKey;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Mutex;

/// The time for the metadata service. It answers in milliseconds where it exists, and must not delay a run
/// elsewhere.
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);

/// The time for the whole chain, with its token exchanges over the network.
const CHAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Credentials that end so soon are fetched again, because a request may be tried for a minute.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);

/// The standard chain: environment, profile, SSO, web identity, container, instance.
pub(super) async fn standard_chain() -> SdkConfig {
    // The TLS library of the S3 client.
    let http = HttpClient::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let settings = ProviderConfig::default().with_http_client(http.clone());
    let metadata = || {
        imds::Client::builder()
            .configure(&settings)
            .max_attempts(2)
            .connect_timeout(METADATA_TIMEOUT)
            .read_timeout(METADATA_TIMEOUT)
            .build()
    };
    let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new());
    let credentials = aws_config::default_provider::credentials::Builder::default()
        .configure(settings.clone())
        .imds_client(metadata())
        .build()
        .await;
    let config = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .region(region)
        .credentials_provider(credentials)
        .load()
        .await;
    if config.region().is_some() || endpoint(&config, "s3").is_some() {
        return config;
    }
    // This comes last, because it takes a second or two outside of AWS.
    let region = imds::region::ImdsRegionProvider::builder()
        .imds_client(metadata())
        .build()
        .region()
        .await;
    config.into_builder().region(region).build()
}

/// The endpoint of a service such as `s3`: `AWS_ENDPOINT_URL_S3` and the service's section of the profile, then the
/// endpoint of all services.
pub(super) fn endpoint(config: &SdkConfig, service: &str) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id(service)
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok();
    config
        .service_config()
        .zip(key)
        .and_then(|(service, key)| service.load_config(key))
        .or_else(|| config.endpoint_url().map(str::to_owned))
        .filter(|endpoint| !endpoint.is_empty())
}

/// The region to sign for. A server at an `endpoint` of its own takes any region. `url` is for the message.
pub(super) fn region(
    config: &SdkConfig,
    endpoint: Option<&str>,
    url: &str,
) -> Result<String, StoreError> {
    match config.region() {
        Some(region) => Ok(region.to_string()),
        None if endpoint.is_some() => Ok(Region::new("us-east-1").to_string()),
        None => Err(StoreError::new(
            StoreErrorKind::NoRegion,
            "opening",
            url,
            "no AWS region is known",
        )),
    }
}

/// Hands the chain's credentials to the S3 client, and renews them before they end.
pub(super) struct ChainCredentials {
    provider: Option<SharedCredentialsProvider>,
    now: Box<dyn Fn() -> SystemTime + Send + Sync>,
    cached: Mutex<Option<(Arc<AwsCredential>, Option<SystemTime>)>>,
}

impl ChainCredentials {
    pub(super) fn new(config: &SdkConfig) -> ChainCredentials {
        let time = config.time_source().unwrap_or_default();
        ChainCredentials {
            provider: config.credentials_provider(),
            now: Box::new(move || time.now()),
            cached: Mutex::new(None),
        }
    }

    pub(super) async fn get(&self) -> Result<Arc<AwsCredential>, CredentialsFailure> {
        let mut cached = self.cached.lock().await;
        let now = (self.now)();
        if let Some((credential, expiry)) = cached.as_ref()
            && expiry.is_none_or(|expiry| now + RENEW_BEFORE < expiry)
        {
            return Ok(Arc::clone(credential));
        }
        match self.fetch().await {
            Ok((credential, expiry)) => {
                *cached = Some((Arc::clone(&credential), expiry));
                Ok(credential)
            }
            // If an early renewal fails, the old credentials are still good.
            Err(failure) => match cached.as_ref() {
                Some((credential, Some(expiry))) if now < *expiry => Ok(Arc::clone(credential)),
                _ => Err(failure),
            },
        }
    }

    async fn fetch(&self) -> Result<(Arc<AwsCredential>, Option<SystemTime>), CredentialsFailure> {
        let none = || CredentialsFailure {
            detail: "no AWS credentials found".to_owned(),
            kind: StoreErrorKind::NoCredentials,
        };
        let provider = self.provider.as_ref().ok_or_else(none)?;
        let found = tokio::time::timeout(CHAIN_TIMEOUT, provider.provide_credentials())
            .await
            .map_err(|_| CredentialsFailure {
                detail: format!("AWS credentials did not come within {CHAIN_TIMEOUT:?}"),
                kind: StoreErrorKind::Expired,
            })?;
        match found {
            Ok(found) => {
                let credential = AwsCredential {
                    key_id: found.access_key_id().to_owned(),
                    secret_key: found.secret_access_key().to_owned(),
                    token: found.session_token().map(str::to_owned),
                };
                Ok((Arc::new(credential), found.expiry()))
            }
            Err(error) => Err(failure(&error).unwrap_or_else(none)),
        }
    }
}

/// Why the chain failed, in one line. `None` where no provider of the chain is configured.
fn failure(error: &CredentialsError) -> Option<CredentialsFailure> {
    let mut innermost: &dyn std::error::Error = error;
    let mut whole = error.to_string();
    while let Some(inner) = innermost.source() {
        innermost = inner;
        whole.push_str(&format!(": {inner}"));
    }
    // The metadata service is the last of the chain: nothing before it is configured.
    if matches!(error, CredentialsError::CredentialsNotLoaded(_)) || whole.contains("IMDS") {
        return None;
    }
    let kind = match error {
        CredentialsError::InvalidConfiguration(_) => StoreErrorKind::NoCredentials,
        _ if whole.contains("AccessDenied") => StoreErrorKind::Denied,
        _ => StoreErrorKind::Expired,
    };
    let reason = innermost.to_string();
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(CredentialsFailure {
        detail: format!("AWS credentials cannot be had ({reason})"),
        kind,
    })
}

impl fmt::Debug for ChainCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainCredentials").finish_non_exhaustive()
    }
}

#[async_trait]
impl CredentialProvider for ChainCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.get()
            .await
            .map_err(|failure| object_store::Error::Generic {
                store: "S3",
                source: Box::new(failure),
            })
    }
}
