#!/usr/bin/env bash
# What it costs to depend on this crate, beside its peers: `benches/build_cost.sh` builds each with the policies that this
# crate has, in release mode and from nothing, and prints CPU seconds (user and system) and the number of crates, the
# crate itself included. Versions and features are those of benches/peers; this crate and backon are built with their
# default features, the others have no policy by default. seatbelt comes with what it needs to run on tokio. Whoever else
# uses the machine makes the seconds more: each is the better of two builds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
here="$PWD" folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
export CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never TIMEFORMAT='%U %S'
unset CARGO_TARGET_DIR RUSTFLAGS

# Of the peers, as the benches have them.
version() {
    grep -A 1 "^name = \"$1\"$" "$here/benches/peers/Cargo.lock" | sed -n 's/^version = "\(.*\)"/\1/p'
}
dependency() {
    awk -v crate="$1" '$1 == crate { found = 1 } found { print } found && /}/ { exit }' "$here/benches/peers/Cargo.toml"
}
dependencies() {
    case "$1" in
    withstand) echo "withstand = { path = \"$here\" }" ;;
    seatbelt) dependency seatbelt && dependency tick && dependency layered ;;
    backon) echo 'backon = "1"' ;;
    *) dependency "$1" ;;
    esac
}

echo "| crate | CPU seconds | crates |"
echo "|---|--:|--:|"
for crate in withstand seatbelt tower-resilience backon; do
    mkdir -p "$folder/$crate/src"
    cd "$folder/$crate"
    : >src/lib.rs
    cp "$here/benches/peers/Cargo.lock" .
    {
        printf '[package]\nname = "cost"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n[dependencies]\n'
        dependencies "$crate"
    } >Cargo.toml
    cargo fetch --quiet
    crates="$(($(cargo tree --edges normal,build --prefix none | sed 's/ (\*)$//' | sort -u | wc -l) - 1))"
    best=""
    for _ in 1 2; do
        rm -rf target
        seconds="$({ time cargo build --release --quiet --jobs 2 2>&3; } 3>&2 2>&1 | awk '{ print $1 + $2 }')"
        best="$(printf '%s\n' ${best:+"$best"} "$seconds" | sort -g | head -n 1)"
    done
    printf '| %s %s | %.1f | %s |\n' "$crate" "$(version "$crate")" "$best" "$crates"
done
