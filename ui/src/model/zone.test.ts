import { describe, expect, it } from "vitest";
import { dateInZone } from "../act/dates";
import { formatClockMs, formatInstant, formatInterval, isZone, zoneName } from "./zone";

const at = Date.parse("2026-11-23T22:58:01.250Z");

describe("zones", () => {
  it("names one zone at a time", () => {
    expect(zoneName("utc", "Europe/Kyiv")).toBe("UTC");
    expect(zoneName("workflow", "Europe/Kyiv")).toBe("Europe/Kyiv");
    expect(zoneName("workflow", "Mars/Base")).toBe("UTC");
    expect(zoneName("workflow", null)).toBe("UTC");
    expect(isZone("America/New_York")).toBe(true);
    expect(isZone("")).toBe(false);
  });

  it("shows an instant with its offset", () => {
    expect(formatInstant(at, "UTC")).toBe("2026-11-23 22:58:01 UTC");
    expect(formatInstant(at, "Europe/Kyiv")).toBe("2026-11-24 00:58:01 GMT+2");
    expect(formatClockMs(at, "America/New_York")).toBe("17:58:01.250");
  });

  it("leaves out of an interval what both ends share", () => {
    const utc = (text: string) => Date.parse(text);
    expect(formatInterval(utc("2026-11-22T00:00:00Z"), utc("2026-11-23T00:00:00Z"), "UTC")).toBe(
      "2026-11-22",
    );
    expect(formatInterval(utc("2026-11-01T00:00:00Z"), utc("2026-12-01T00:00:00Z"), "UTC")).toBe(
      "2026-11-01 → 2026-12-01",
    );
    expect(formatInterval(utc("2026-11-22T01:00:00Z"), utc("2026-11-22T02:00:00Z"), "UTC")).toBe(
      "2026-11-22 01:00 → 02:00",
    );
    // A day of 23 hours is still that day.
    expect(
      formatInterval(utc("2026-03-28T22:00:00Z"), utc("2026-03-29T21:00:00Z"), "Europe/Kyiv"),
    ).toBe("2026-03-29");
  });
});

describe("days as instants", () => {
  it("follows the zone's changes", () => {
    expect(dateInZone("2026-11-23", "UTC", 0)).toBe("2026-11-23T00:00:00Z");
    expect(dateInZone("2026-11-23", "Europe/Kyiv", 0)).toBe("2026-11-22T22:00:00Z");
    // Clocks go forward in the night of 29 March: the day is 23 hours long.
    expect(dateInZone("2026-03-29", "Europe/Kyiv", 0)).toBe("2026-03-28T22:00:00Z");
    expect(dateInZone("2026-03-29", "Europe/Kyiv", 1)).toBe("2026-03-29T21:00:00Z");
    expect(dateInZone("2026-10-25", "Europe/Kyiv", 1)).toBe("2026-10-25T22:00:00Z");
    expect(dateInZone("2026-12-31", "America/New_York", 1)).toBe("2027-01-01T05:00:00Z");
  });

  it("takes the first instant where midnight does not exist", () => {
    // Cairo's clocks jump from 00:00 to 01:00 on 24 April 2026.
    expect(dateInZone("2026-04-24", "Africa/Cairo", 0)).toBe("2026-04-23T22:00:00Z");
  });
});
