//! stub
#[derive(Debug, clap::Args)]
pub struct InspectArgs {}
pub fn run(_: InspectArgs) -> Result<(), crate::failure::Failure> {
    Ok(())
}
