import struct
import zlib

import kobza
from kobza import Artifact, Outputs, notes


def picture(width=320, height=120):
    """A PNG, without a library: a gradient."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(
        b"\0" + bytes(v for x in range(width) for v in (40, 90 + x // 3, 120 + y)) for y in range(height)
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


PAGE = """<!doctype html><h1>84,112 orders</h1><p id=p>before</p>
<script>document.getElementById("p").textContent = "owned"; top.document.title = "owned"</script>
<img src="https://example.org/tracker.png" onerror="top.document.title='owned'">"""


def make():
    notes.markdown("# Orders\n\n**2.1 %** were refused.\n\n<img src=x onerror=alert(1)>", name="report")
    notes.table([{"region": "eu", "rows": 51200}, {"region": "<b>us</b>", "rows": 32912}], name="regions")
    notes.image(picture(), name="gradient")
    notes.plot(["mon", "tue", "wed", "thu"], {"orders": [4, 7, 3, 9]}, kind="bar", name="week")
    notes.plot([1, 2, 3, 4], {"a": [1, 4, 9, 16], "b": [2, 3, 5, 8]}, name="growth")
    for step in range(20):
        notes.metric("loss", 1 / (step + 1), step=step)
    notes.metric("auc", 0.973)
    rows = "\n".join(f"{i},item {i},{i * 3 % 97}" for i in range(1000))
    return Outputs(
        rows=Artifact.of_bytes(f"id,name,amount\n{rows}\n".encode(), media_type="text/csv", name="orders.csv"),
        page=Artifact.of_bytes(PAGE.encode(), media_type="text/html", name="summary.html"),
        drawing=Artifact.of_bytes(
            b"<svg xmlns='http://www.w3.org/2000/svg' width='120' height='60'>"
            b"<script>top.document.title='owned'</script><rect width='120' height='60' fill='#357'/></svg>",
            media_type="image/svg+xml", name="drawing.svg"),
        settings=Artifact.of_bytes(b'{"depth": 6, "rate": 0.1}', media_type="application/json", name="settings.json"),
        model=Artifact.of_bytes(b"\x80\x04", name="model.bin"),
    )
