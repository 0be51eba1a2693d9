//! A target that several runs share, one after the other.

use crate::target::{Highwater, Null, NullError};
use crate::{LoadError, LoadOptions, Observer, Report, Stop, run_on};

#[cfg(target_os = "linux")]
use crate::target::Refusal;
#[cfg(target_os = "linux")]
use crate::target::embedded::{self, Embedded, EmbeddedOptions};

/// What the target names, kept open: an engine in this process goes on from run to run, as a server does.
pub struct Session(Kind);

enum Kind {
    Server,
    Null(Null),
    #[cfg(target_os = "linux")]
    Embedded(Embedded),
}

impl Session {
    /// Opens what `options.target` names; a server is asked by the first run.
    ///
    /// # Errors
    /// A target that cannot be, or an engine that cannot be opened.
    pub fn open(options: &LoadOptions) -> Result<Session, LoadError> {
        options.validate()?;
        let target = &options.target;
        if target == "null" || target.starts_with("null:") {
            let null = target.parse().map_err(|why: NullError| LoadError::NoTarget {
                target: target.clone(),
                why: why.to_string(),
            })?;
            return Ok(Session(Kind::Null(null)));
        }
        #[cfg(target_os = "linux")]
        if let Some(dir) = embedded::directory(target) {
            let refused = |why: Refusal| LoadError::Target {
                target: target.clone(),
                doing: "opening the engine",
                message: why.0,
            };
            let engine = Embedded::open(EmbeddedOptions::of(dir, options)).map_err(refused)?;
            return Ok(Session(Kind::Embedded(engine)));
        }
        Ok(Session(Kind::Server))
    }

    /// One run, as [`crate::run`] does; `options.target` is the one that was opened.
    pub fn run(
        &self,
        options: LoadOptions,
        observer: &mut dyn Observer,
        stop: &Stop,
    ) -> Result<Report, LoadError> {
        match &self.0 {
            Kind::Server => run_on(Highwater::of(&options), options, observer, stop),
            Kind::Null(null) => run_on(null.clone(), options, observer, stop),
            #[cfg(target_os = "linux")]
            Kind::Embedded(engine) => {
                let mut report = run_on(engine.clone(), options, observer, stop)?;
                report.notes.extend(engine.notes());
                Ok(report)
            }
        }
    }

    /// Closes it; what was left behind, if it could not be removed.
    pub fn close(self) -> Option<String> {
        match self.0 {
            #[cfg(target_os = "linux")]
            Kind::Embedded(engine) => engine.close().err().map(|why| why.0),
            _ => None,
        }
    }
}
