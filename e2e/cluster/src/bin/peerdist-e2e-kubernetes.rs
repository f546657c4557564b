//! Builds the programs of Kubernetes if this machine has not yet, so that no test has to wait for that.

fn main() -> anyhow::Result<()> {
    println!("{}", peerdist_e2e_cluster::binaries::built()?.display());
    Ok(())
}
