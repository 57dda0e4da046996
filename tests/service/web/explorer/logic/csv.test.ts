import assert from "node:assert/strict";
import { test } from "node:test";

import { toCsv } from "../../../../../service/web/explorer/src/csv";

test("commas, quotes and line ends stay in their field", () => {
  assert.equal(toCsv([["a,b", 'say "hi"', "two\nlines", 0.5, null]]), '"a,b","say ""hi""","two\nlines",0.5,\r\n');
});

test("a text that a spreadsheet would run is a text, and a number stays a number", () => {
  assert.equal(toCsv([["=1+1", "+x", "-x", "@x", -0.25]]), "'=1+1,'+x,'-x,'@x,-0.25\r\n");
});
