SUMMARY = "Headwater's worker: probes what a board can do and runs transcoding pipelines"
DESCRIPTION = "The GStreamer process behind Headwater's agent. Proves each codec of the board before it is used, and \
transcodes segments with what was proved."
SECTION = "multimedia"

DEPENDS = "glib-2.0 gstreamer1.0 gstreamer1.0-plugins-base"

HEADWATER_CRATE = "headwater-pipelines"
HEADWATER_MEMBERS = "protocol pipelines pipelines/scaler"
HEADWATER_FOLDERS = "protocol pipelines"

require headwater.inc
require headwater-worker-crates.inc

# Encoders and decoders in software, for boards without their own. Their licences ask for a decision of yours, see
# LICENSE_FLAGS_ACCEPTED in the README.
PACKAGECONFIG ??= ""
PACKAGECONFIG[software] = ",,,gstreamer1.0-plugins-ugly-meta gstreamer1.0-libav"

# Parsers, muxers and what joins them: without these there is no transcoding at all.
RDEPENDS:${PN} = "\
    gstreamer1.0-plugins-bad-meta \
    gstreamer1.0-plugins-base-meta \
    gstreamer1.0-plugins-good-meta \
"
