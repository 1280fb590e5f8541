//! To whom a request goes.

use std::fmt;

use ::reqwest::Url;

/// Whom a request goes to: scheme, host and port of its URL. Each has a pipeline of its own.
///
/// Shown as an origin: `http://users.internal:80`. The port is always there, and the host is in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    scheme: String,
    name: String,
    port: u16,
}

impl Host {
    /// That of a URL. None if it has no host or is not HTTP: then reqwest refuses to send it.
    #[must_use]
    pub fn of(url: &Url) -> Option<Self> {
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        let (name, port) = (url.host_str()?, url.port_or_known_default()?);
        Some(Self { scheme: url.scheme().to_owned(), name: name.to_owned(), port })
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The name, or the address: `users.internal`, `127.0.0.1`, `[::1]`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port, that of the scheme where the URL has none.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, name, port } = self;
        write!(f, "{scheme}://{name}:{port}")
    }
}
