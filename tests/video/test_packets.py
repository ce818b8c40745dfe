"""Tables and plans by hand; the order of coding is I0 P3 B1 B2 | I6 B4 B5 P7, the frame numbers are those behind."""

import av
import pytest

from cbam3d.video import packets
from cbam3d.video.decode import stream_facts
from cbam3d.video.packets import Entry, Span, entry_of, plan, tabulate

H264, MPEG4, MJPEG, MPEG2, RAW = "h264", "mpeg4", "mjpeg", "mpeg2video", "rawvideo"
MP4, MKV, AVI = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"
SHOWN = [0, 3, 1, 2, 6, 4, 5, 7]
INTRA, P, B = 0, 1, 2
KINDS = [INTRA, P, B, B, INTRA, B, B, P]


def entries(hidden=(), shown=SHOWN, kinds=KINDS):
    return [
        Entry(40 * time, 40 * place - 80, kind == INTRA, time in hidden, kind)
        for place, (time, kind) in enumerate(zip(shown, kinds, strict=True))
    ]


def test_frames_are_numbered_by_their_timestamps():
    table = tabulate(entries(), H264, MP4)
    assert table is not None
    assert [list(table.places).index(place) for place in range(8)] == SHOWN
    assert (list(table.ranks), list(table.keyframes), table.times[0]) == (SHOWN, [0, 4], -80)


def test_mpeg4_is_numbered_by_its_kinds_of_pictures_whatever_the_timestamps_say():
    confused = [entry._replace(shown_at=0) for entry in entries()]
    table = tabulate(confused, MPEG4, AVI)
    assert table is not None
    assert list(table.ranks) == SHOWN


def test_frames_hidden_by_an_edit_list_have_no_number():
    table = tabulate(entries(hidden=(0, 1)), H264, MP4)
    assert table is not None
    assert list(table.places) == [3, 1, 5, 6, 4, 7]
    assert list(table.ranks) == SHOWN


def test_where_only_decoding_tells_there_is_no_table():
    assert tabulate(entries(), MPEG2, MP4) is None
    assert tabulate(entries(), H264, AVI) is None  # no timestamps of presentation
    assert tabulate([], H264, MP4) is None
    assert tabulate(entries()[1:], H264, MP4) is None  # begins without a keyframe
    assert tabulate(entries()[4:], H264, MP4) is None  # begins with frames whose references are missing
    twice = [*entries()[:-1], entries()[0]._replace(keyframe=False)]
    assert tabulate(twice, H264, MP4) is None
    unknown = [entry._replace(shown_at=None) for entry in entries()]
    assert tabulate(unknown, H264, MP4) is None
    assert tabulate([entry._replace(kind=None) for entry in entries()], MPEG4, AVI) is None
    assert tabulate(entries(kinds=[INTRA, B, B, P, P, P, P, P]), MPEG4, AVI) is None  # B-pictures before two others
    assert tabulate([entry._replace(keyframe=True) for entry in unknown], MJPEG, AVI) is not None
    assert tabulate([entry._replace(keyframe=True) for entry in unknown], RAW, AVI) is None  # a palette comes once


def test_timestamps_in_the_order_of_coding_are_not_believed_beside_b_pictures():
    assert tabulate(entries(shown=range(8)), H264, MP4) is None
    assert tabulate(entries(shown=range(8)), "hevc", MP4) is None
    table = tabulate(entries(shown=range(8), kinds=[INTRA, P, P, P, INTRA, P, P, P]), H264, MP4)
    assert table is not None
    assert list(table.places) == list(range(8))


@pytest.mark.parametrize(
    ("codec", "options", "expected"),
    [
        ("libx264", {"x264-params": "bframes=2:b-adapt=0:keyint=7:scenecut=0"}, [INTRA, P, B, B, P, B, B, INTRA]),
        ("libx264", {"x264-params": "bframes=0:keyint=4:scenecut=0"}, [INTRA, P, P, P, INTRA, P, P, P]),
        (
            "libx265",
            {"x265-params": "bframes=2:b-adapt=0:keyint=7:scenecut=0:log-level=none"},
            [INTRA, P, B, B, P, B, B],
        ),
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "ts"])  # lengths before the units, and start codes
def test_kinds_of_pictures_are_those_that_the_encoder_was_asked_for(make_video, codec, options, expected, suffix):
    path = make_video(f"v.{suffix}", 20, codec, **options)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        facts = stream_facts(container, stream)
        kinds = [entry_of(packet, *facts).kind for packet in container.demux(stream) if packet.size]
        container.seek(0)
        shown = [frame.pict_type for frame in container.decode(stream)]
    assert kinds[: len(expected)] == expected
    assert [kinds.count(kind) for kind in (INTRA, P, B)] == [shown.count(kind) for kind in (1, 2, 3)]


def test_a_keyframe_serves_the_frames_from_its_own_on():
    table = tabulate(entries(), H264, MP4)
    assert table is not None
    assert plan(table, [7]) == [Span(4, 8)]
    assert plan(table, [6]) == [Span(4, 5)]
    assert plan(table, [5]) == [Span(0, 7)]  # leads the keyframe 6: its reference 3 would be missing
    assert plan(table, [3]) == [Span(0, 2)]
    assert plan(table, [0, 7]) == [Span(0, 1), Span(4, 8)]
    assert plan(table, [2, 6]) == [Span(0, 5)]  # a run that ends where the next begins goes on
    assert plan(table, [7, 0, 0]) == plan(table, [0, 7])


def test_frames_are_passed_over_only_where_none_is_missing():
    for shown, expected in ((SHOWN, True), ([0, 3, 1, 2, 7, 5, 6, 8], False)):
        table = tabulate(entries(shown=shown), H264, MP4)
        assert table is not None
        assert table.skippable is expected


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_a_description_that_is_cut_off_describes_nothing(codec):
    assert list(packets._units(memoryview(bytes(40)), codec, b"\1")) == []
