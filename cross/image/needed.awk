# Reads `readelf -d` of every program and library; prints the libraries that none of the kept files needs, even through
# others. A file is kept where it is not a library of the common folder, and where `keep` (a pattern) matches its name:
# libraries that programs load by name while they run. Fails where a kept file needs a library that is not there.
/^File: / { file = substr($0, 7); files[++count] = file; name = file; sub(".*/", "", name); at[name] = at[name] " " file; next }
/\(NEEDED\)/ { match($0, /\[.*\]/); needs[file] = needs[file] " " substr($0, RSTART + 1, RLENGTH - 2) }
/\(SONAME\)/ { match($0, /\[.*\]/); soname = substr($0, RSTART + 1, RLENGTH - 2); at[soname] = at[soname] " " file }
function use(file,    i, n, list, j, m, places) {
    if (file in used) return
    used[file] = 1
    n = split(needs[file], list, " ")
    for (i = 1; i <= n; i++) {
        m = split(at[list[i]], places, " ")
        for (j = 1; j <= m; j++) use(places[j])
        if (!m) { print file " needs " list[i] >"/dev/stderr"; missing = 1 }
    }
}
END {
    for (i = 1; i <= count; i++) {
        name = files[i]; sub(".*/", "", name)
        # Plugins lie deeper than the common folder.
        common = files[i] ~ /^usr\/lib\/aarch64-linux-gnu\/[^\/]*$/
        if (!common || name ~ keep) use(files[i])
    }
    for (i = 1; i <= count; i++) if (!(files[i] in used)) print files[i]
    exit missing
}
