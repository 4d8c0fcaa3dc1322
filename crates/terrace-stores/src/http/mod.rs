//! An HTTP server as a source of the tiered cache: a GET for each load, whose body is the value.
//!
//! Opening checks the options and touches no network. Invariant: a request is sent again only if a kept connection
//! ended before the first byte of the answer, once, on a new connection.

mod client;
mod meaning;
mod template;
#[cfg(test)]
mod tests;

use terrace_cache::{BoxFuture, LoadError, LoadRequest, Loaded, Params, Source};

use client::Client;
use template::Template;

/// How many bytes a body may have unless configured otherwise: 16 MiB.
pub const BODY_BYTES_MAX_DEFAULT: usize = 16 * 1024 * 1024;

/// How to open an [`HttpSource`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// `http://host:port/path?query` or `http://unix:path:/path?query`. In path and query `:name` stands for the
    /// parameter of this name, which is escaped.
    pub url: String,
    /// Fields that each request has. Host is the URL's unless it is among them.
    pub headers: Vec<(String, String)>,
    /// The parameters that must be integers; anything else is "not found" without a request. Default none.
    pub integers: Vec<String>,
    /// Whether the life of the value is what Cache-Control and Age say. Default false.
    pub honor_cache_control: bool,
    /// The field that has the version of the value: a number, a time, or a date of HTTP. Quotes and the `W/` of an
    /// entity tag do not count. Default none.
    pub version_header: Option<String>,
    /// How many bytes a body may have; more fails the load. Default [`BODY_BYTES_MAX_DEFAULT`].
    pub body_bytes_max: usize,
    /// How many connections may be open at once. Default 4; at least 1.
    pub connections_max: u32,
    /// How long a load waits for a free connection, and how long opening one may take. Default 1 000.
    pub acquire_timeout_ms: u64,
    /// How long the request and its answer may take. Default 2 000.
    pub query_timeout_ms: u64,
}

impl HttpOptions {
    /// A URL, with the defaults for the rest.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            headers: Vec::new(),
            integers: Vec::new(),
            honor_cache_control: false,
            version_header: None,
            body_bytes_max: BODY_BYTES_MAX_DEFAULT,
            connections_max: 4,
            acquire_timeout_ms: 1_000,
            query_timeout_ms: 2_000,
        }
    }
}

/// Why the options of a source are wrong: a fault of the configuration, and no retry helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The URL cannot be used.
    #[error("the URL \"{url}\" cannot be used: {reason}")]
    Url {
        /// The URL as configured.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A header field cannot be sent.
    #[error("the header \"{0}\" cannot be sent")]
    Header(String),
    /// A parameter is declared an integer but does not occur.
    #[error("the URL has no parameter :{0}")]
    NoSuchParameter(String),
}

/// A source that sends one request for each load.
///
/// 200 is a value, whatever its type; 204, 404 and 410 are "not found". 408, 429 and the 5xx say that the source is
/// unavailable, all others that the answer cannot be used.
pub struct HttpSource {
    template: Template,
    /// For each parameter, whether it must be an integer.
    integers: Vec<bool>,
    client: Client,
    honor_cache_control: bool,
    version_header: Option<String>,
}

impl HttpSource {
    /// Checks the options. Opens nothing; that is for the first load.
    ///
    /// Loads must run on a tokio runtime with its timer and network enabled.
    pub fn open(options: HttpOptions) -> Result<Self, HttpError> {
        let template = Template::parse(&options.url)?;
        if let Some(name) = options.integers.iter().find(|name| !template.names.contains(name)) {
            return Err(HttpError::NoSuchParameter(name.clone()));
        }
        let integers = template.names.iter().map(|name| options.integers.contains(name)).collect();
        let client = Client::new(&template, &options)?;
        let HttpOptions { honor_cache_control, version_header, .. } = options;
        Ok(Self { template, integers, client, honor_cache_control, version_header })
    }

    /// The names of the URL's parameters, each once, in the order of their first use.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.template.names.iter().map(String::as_str)
    }

    async fn run(&self, params: Params) -> Result<Loaded, LoadError> {
        let Some(target) = self.template.fill(&params, &self.integers)? else {
            return Ok(Loaded::not_found());
        };
        let answer = self.client.get(&target).await?;
        let ttl_ms = if self.honor_cache_control { meaning::ttl_ms(&answer) } else { None };
        match answer.status {
            200 => {
                if answer.first("content-encoding").is_some_and(|coding| coding != "identity") {
                    return Err(LoadError::Invalid("the answer is encoded, which was not asked for".into()));
                }
                let version = match &self.version_header {
                    Some(name) => meaning::version(&answer, name)?,
                    None => 0,
                };
                Ok(Loaded::versioned(answer.body, ttl_ms, version))
            }
            204 | 404 | 410 => Ok(Loaded::NotFound { ttl_ms }),
            408 | 429 | 500.. => {
                Err(LoadError::Unavailable(format!("the answer's status is {}", answer.status).into()))
            }
            _ => Err(LoadError::Invalid(format!("the answer's status is {}", answer.status).into())),
        }
    }
}

impl Source for HttpSource {
    fn load(&self, request: LoadRequest) -> BoxFuture<'_, Result<Loaded, LoadError>> {
        Box::pin(self.run(request.params))
    }
}
