"""Chinese as written -> Chinese as said: numbers, dates, money, units, signs.

Same plan as ``english``: patterns in order, each with what it says, tried wherever a token may
begin. Works on simplified and traditional text (the words it adds are simplified).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from stepaudio.tts.text import english
from stepaudio.tts.text.english import Piece

# --- numbers -----------------------------------------------------------------------------------

_DIGITS = "零一二三四五六七八九"
_GROUPS = ["", "万", "亿", "万亿", "亿亿"]


def digits(text: str, one: str = "一") -> str:
    """Digit by digit: "2024" -> "二零二四". In telephone numbers one is 幺."""
    return "".join(one if c == "1" else _DIGITS[int(c)] for c in text if c.isascii() and c.isdigit())


def _group(n: int, leading: bool) -> str:
    """A number below 10000; 两 for a leading 2 of hundreds, always of thousands."""
    said, zero = "", False
    for value, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = n // value % 10
        if not digit:
            zero = bool(said) and n % value > 0
            continue
        if zero:
            said += "零"
            zero = False
        two = digit == 2 and (value == 1000 or (value == 100 and not said and leading))
        said += ("两" if two else _DIGITS[digit]) + unit
    return said


def cardinal(text: str | int) -> str:
    """ "10011" -> "一万零一十一"; digit by digit with a leading zero or over 16 digits."""
    text = str(text).replace(",", "").replace("，", "")
    if len(text) > 16 or (len(text) > 1 and text[0] == "0"):
        return digits(text)
    n = int(text)
    if n == 0:
        return "零"
    if 10 <= n < 20:
        return "十" + (_DIGITS[n % 10] if n % 10 else "")
    groups = []
    while n:
        n, group = divmod(n, 10000)
        groups.append(group)
    said, gap = "", False
    for index in range(len(groups) - 1, -1, -1):
        group = groups[index]
        if not group:
            gap = bool(said)
            continue
        if said and (gap or group < 1000):
            said += "零"
        gap = False
        words = _group(group, not said)
        if (not said or index) and 10 <= group < 20:
            words = words[1:]  # 十万, not 一十万
        if not said and group == 2 and index:
            words = "两"
        said += words + _GROUPS[index]
    # 一亿零五百 万 … the unit of a group that 万亿 already holds is said once
    return re.sub(r"万亿(?=[^亿]*[一二三四五六七八九]亿)", "万", said)


def number(text: str) -> str:
    """A plain number, with thousands separators or a decimal point."""
    whole, point, fraction = text.partition(".")
    said = cardinal(whole or "0")
    return said + ("点" + digits(fraction) if point and fraction else "")


# --- tables ------------------------------------------------------------------------------------

_UNITS = dict(
    pair.split(":")
    for pair in (
        "km:公里 m:米 cm:厘米 mm:毫米 nm:纳米 μm:微米 um:微米 dm:分米 kg:千克 KG:千克 Kg:千克 g:克 mg:毫克 μg:微克 t:吨 lb:磅 lbs:磅 "
        "oz:盎司 ft:英尺 in:英寸 yd:码 mi:英里 L:升 l:升 ml:毫升 mL:毫升 ML:毫升 km/h:每小时~公里 mph:每小时~英里 m/s:每秒~米 "
        "Hz:赫兹 kHz:千赫兹 KHz:千赫兹 MHz:兆赫兹 GHz:吉赫兹 KB:KB MB:兆 GB:GB TB:TB Mbps:每秒~兆 "
        "mbps:每秒~兆 Gbps:每秒~G fps:每秒~帧 rpm:每分钟~转 bpm:每分钟~拍 h:小时 min:分钟 s:秒 ms:毫秒 μs:微秒 ns:纳秒 "
        "W:瓦 kW:千瓦 KW:千瓦 MW:兆瓦 GW:吉瓦 kWh:千瓦时 V:伏 kV:千伏 mV:毫伏 A:安 mA:毫安 mAh:毫安时 J:焦耳 kJ:千焦 kcal:千卡 cal:卡 "
        "Pa:帕 kPa:千帕 hPa:百帕 MPa:兆帕 N:牛 dB:分贝 db:分贝 Ω:欧姆 mol:摩尔 ha:公顷 px:像素 ppm:ppm °C:摄氏度 °c:摄氏度 °F:华氏度 °:度 "
        "㏄:毫升 cc:毫升"
    ).split()
)
for _sign in ("km", "m", "cm", "mm"):
    for _mark, _power in (
        ("²", "平方"),
        ("2", "平方"),
        ("³", "立方"),
        ("3", "立方"),
        ("^2", "平方"),
        ("^3", "立方"),
    ):
        _UNITS[_sign + _mark] = _power + _UNITS[_sign].replace("公里", "千米")
_PER = {
    "h": "每小时",
    "s": "每秒",
    "min": "每分钟",
    "d": "每天",
    "m": "每米",
    "kg": "每千克",
    "m²": "每平方米",
    "m³": "每立方米",
}
_PER |= {
    "L": "每升",
    "l": "每升",
    "人": "每人",
    "天": "每天",
    "月": "每月",
    "年": "每年",
    "日": "每日",
    "小时": "每小时",
    "周": "每周",
}
_PER |= {
    "次": "每次",
    "斤": "每斤",
    "公斤": "每公斤",
    "个": "每个",
    "平": "每平",
    "平米": "每平米",
    "秒": "每秒",
    "分钟": "每分钟",
    "件": "每件",
}
_CURRENCY = {
    "$": "美元",
    "£": "英镑",
    "€": "欧元",
    "¥": "元",
    "₩": "韩元",
    "₽": "卢布",
    "₹": "卢比",
    "₫": "越南盾",
    "฿": "泰铢",
    "₿": "比特币",
}
_CURRENCY |= {
    "US$": "美元",
    "A$": "澳元",
    "AU$": "澳元",
    "C$": "加元",
    "CA$": "加元",
    "HK$": "港元",
    "NT$": "新台币",
    "S$": "新加坡元",
}
_CURRENCY |= {
    "NZ$": "新西兰元",
    "R$": "雷亚尔",
    "CNY": "人民币",
    "RMB": "人民币",
    "USD": "美元",
    "EUR": "欧元",
    "GBP": "英镑",
    "JPY": "日元",
}
_CURRENCY |= {
    "HKD": "港元",
    "KRW": "韩元",
    "AUD": "澳元",
    "CAD": "加元",
    "CHF": "瑞士法郎",
    "SGD": "新加坡元",
    "TWD": "新台币",
}
_MAGNITUDE = {
    "w": "万",
    "W": "万",
    "k": "千",
    "million": "百万",
    "billion": "十亿",
    "trillion": "万亿",
    "M": "百万",
    "m": "百万",
}
_MAGNITUDE |= {"K": "千", "B": "十亿", "b": "十亿", "bn": "十亿"}
_SIGNS = {
    "+": "加", "=": "等于", "×": "乘以", "÷": "除以", "±": "正负", "≈": "约等于", "≠": "不等于", "≤": "小于等于", "≥": "大于等于",
    "%": "百分号", "‰": "千分号", "&": "和", "@": "艾特", "√": "根号", "∞": "无穷大", "°": "度", "℃": "摄氏度", "²": "的平方", "³": "的立方",
    "½": "二分之一", "¼": "四分之一", "¾": "四分之三", "⅓": "三分之一", "⅔": "三分之二", "⅛": "八分之一", "→": "到", "$": "美元", "€": "欧元",
    "£": "英镑", "¥": "元", "∑": "求和", "∫": "积分", "^": "的次方", "§": "节", "∈": "属于",
}  # fmt: skip
_SIGNS |= {greek: english._SIGNS[greek] for greek in "αβγδεζηθλμπρστφχψωΔΣΩΦΠΛΘΓΨ"}
_SIGNS |= {
    "α": "阿尔法",
    "β": "贝塔",
    "γ": "伽马",
    "π": "派",
    "μ": "缪",
    "θ": "西塔",
    "λ": "兰姆达",
    "σ": "西格玛",
    "ω": "欧米伽",
    "δ": "德尔塔",
}
_SIGNS_IN_NAMES = {
    ".": "点",
    "/": "斜杠",
    "-": "杠",
    "_": "下划线",
    "@": "艾特",
    ":": "冒号",
    "?": "问号",
    "=": "等于",
    "&": "和",
    "#": "井号",
}
_ACRONYMS = set("nba atm ufo gpu cpu ceo cfo cto mvp app gpt vip ktv wto who pk ok tv dna usb wifi gps gdp ppt pdf hr it ai ar vr bbc cba".split()) - {
    "who", "it", "ok", "wifi", "app", "ar",
}  # fmt: skip
# Words that 两 goes with rather than 二.
_COUNTED = (
    "个只条张位名人年天周岁块元角毛分钟小次回遍趟下场件套双对副把本册页篇首支枝根棵株朵头匹群种样类层间所座栋家门辆架艘台部颗粒片滴杯碗瓶盒包袋箱"
    "句段步口点时刻半万亿千米公里厘尺寸斤克吨升顿番阵股笔份封项道餐轮届期节课组排行列队班拨帮伙代辈侧边端者国省市县村派方手眼腿脚秒星集毫平摄瓦"
    "個張條塊雙對間棟輛顆組隊課節項屆輪頓噸歲種樣類層門兩"
)
_DIGIT_WORDS = re.compile(
    r"(?:号码|編號|编号|尾号|尾號|密码|密碼|验证码|驗證碼|账号|帳號|卡号|卡號|学号|工号|单号|訂單號|订单号|电话|電話|手机|手機|热线|熱線|邮编|郵編|QQ|qq|微信|"
    r"车牌|航班|代码|代碼|身份证|身份證|房号|门牌|拨打|撥打|请拨|致电|代号|型号|房间|區號|区号|打|給|给|拨|撥|ID|id)(?:号|號)?[是为為:：\s]{0,3}$"
)
_STRONG_DIGIT_WORDS = re.compile(r"(?:打|給|给|拨|撥|房间|型号)[是为為:：\s]{0,3}$")
_SERVICE = {
    "110",
    "119",
    "120",
    "122",
    "12306",
    "12315",
    "12345",
    "10086",
    "10010",
    "10000",
    "95588",
    "95533",
    "911",
    "12348",
    "114",
}
_MATH_CONTEXT = re.compile(r"[=+×÷≤≥<>≈]")

Say = Callable[[re.Match[str]], "str | list[Piece] | None"]


def _before(match: re.Match[str], size: int = 12) -> str:
    return match.string[max(0, match.start() - size) : match.start()]


def _after(match: re.Match[str], size: int = 12) -> str:
    return match.string[match.end() : match.end() + size]


def _clause(match: re.Match[str]) -> str:
    """What stands before in the same clause."""
    return re.split(r"[,，。;；!?]", _before(match))[-1]


def count(text: str, after: str) -> str:
    """A cardinal before ``after``: a lone 2 is 两 before what is counted."""
    if (
        text == "2"
        and after[:1]
        and after[0] in _COUNTED
        and not re.match(r"月|年级|年級|号|號|点\d|分之|两|小[学]", after)
    ):
        return "两"
    return number(text)


def _date(year: str, month: str, day: str | None) -> str | None:
    if not 1 <= int(month) <= 12 or (day and not 1 <= int(day) <= 31):
        return None
    said = (digits(year) + "年" if year else "") + cardinal(int(month)) + "月"
    return said + (cardinal(int(day)) + "日" if day else "")


def _half_day(text: str | None) -> str:
    return "" if not text else "上午" if text[0] in "Aa" else "下午"


def _clock(match: re.Match[str]) -> str | None:
    hour, minute, second, half = match.groups()
    if int(hour) > 24 or int(minute) > 59 or len(minute) != 2 or (second and int(second) > 59):
        return None
    if (
        not second
        and not half
        and re.search(r"比分|战胜|戰勝|击败|擊敗|[战戰]成|落后|领先|比值|爆冷", _clause(match))
    ):
        return None
    if half and (int(hour) > 12 or re.search(r"上午|下午|晚上|早上|凌晨|中午", _before(match))):
        half = None
    said = _half_day(half) + ("两" if int(hour) == 2 else cardinal(int(hour))) + "点"
    if minute != "00" or second:
        said += ("零" if minute[0] == "0" and minute != "00" else "") + cardinal(int(minute)) + "分"
    if second:
        said += ("零" if second[0] == "0" and second != "00" else "") + cardinal(int(second)) + "秒"
    return said


def _year(match: re.Match[str]) -> str | None:
    """2024年 digit by digit; 20年后 counted."""
    text = match.group(1)
    before, after = _before(match), _after(match)
    dated = re.search(r"公元前?|西元前?|民国|于|於|从|自|到|至|在|截至|截止|[-—~～到至]$", before[-4:])
    if len(text) == 4 and not (text.endswith("000") and text != "2000" and not dated):
        return digits(text) + "年"
    if re.search(r"公元前?$|西元前?$", before) or (len(text) == 2 and text[0] == "0"):
        return digits(text) + "年"
    if (
        len(text) == 2
        and text != "10"
        and not re.match(r"[后後前内內来來间間代的以多来级級]|时间|左右|期|历史|歷史", after)
    ):
        if (
            not before.strip()
            or re.search(r"[,。;:!?，]\s?$|[于於从自在]$|\d年[-—~～到至]$", before)
            or re.match(r"\d{1,2}月", after)
        ):
            return digits(text) + "年"
    return count(text, "年" + after) + "年"


def _era(match: re.Match[str]) -> str:
    era = "公元前" if "b" in match.group(3).lower() else "公元"
    return (
        era + digits(match.group(1)) + "年" + (f"{cardinal(int(match.group(2)))}月" if match.group(2) else "")
    )


def _month(match: re.Match[str]) -> str | None:
    if not 1 <= int(match.group(1)) <= 12:
        return None
    return cardinal(int(match.group(1))) + "月"


def _day(match: re.Match[str]) -> str | None:
    return cardinal(int(match.group(1))) + match.group(2) if int(match.group(1)) <= 31 else None


def _phone(match: re.Match[str]) -> str:
    text = match.group()
    groups = re.findall(r"\d+", text)
    return ("加" if text.startswith("+") else "") + ",".join(digits(group, "幺") for group in groups)


def _service(match: re.Match[str]) -> str | None:
    text = match.group()
    strong = len(text) == 5 or _DIGIT_WORDS.search(_before(match)) or text in ("110", "119") and not _before(match).strip()
    if (
        text not in _SERVICE
        or not strong
        or re.match(r"\s?[米个人元块年天%次名千百万亿岁斤字页分小度人台辆间吨克]", _after(match))
    ):
        return None
    return digits(text, "幺")


def _coded(match: re.Match[str]) -> str | None:
    before, after = _before(match), _after(match)
    if not _DIGIT_WORDS.search(before) or re.match(
        r"[\s]?[个個人元块塊年天%次名千百万亿月日号只条张]|[,，.]\d", after
    ):
        return None
    if _STRONG_DIGIT_WORDS.search(before) and len(match.group()) < 3:
        return None
    return digits(
        match.group(),
        "幺" if re.search(r"[电電]话|話|手机|手機|[热熱][线線]|[打给給拨撥]|致[电電]", before) else "一",
    )


def _per_cent(words: str) -> Say:
    def say(match: re.Match[str]) -> str:
        minus, low, low_sign, high = match.groups()
        said = ("负" if minus else "") + f"{words}{number(low)}"
        if high:
            said += "到" + (words if low_sign else "") + number(high)
        return said

    return say


def _money(match: re.Match[str]) -> str:
    minus, sign, amount, upper, big = match.groups()
    unit = _CURRENCY[sign]
    big = _MAGNITUDE.get(big, big) if big else ""
    said = number(amount) if amount != "2" or unit not in ("元", "美元") or big else "两"
    if upper:
        said += "到" + number(upper)
    return ("负" if minus else "") + said + big + unit


def _money_after(match: re.Match[str]) -> str:
    amount, big, code = match.groups()
    return number(amount) + (_MAGNITUDE.get(big, big) if big else "") + _CURRENCY[code]


def _measure(match: re.Match[str]) -> str | None:
    minus, low, high, unit, per = match.groups()
    if unit in ("m", "A", "V", "N", "W", "J", "L", "g", "t", "h", "l", "s", "in", "K") and re.match(
        r"[A-Za-z\d'-]", _after(match)
    ):
        return None
    if unit == "°" and re.match(r"\d", _after(match)):
        return None
    words = _UNITS[unit]
    counted = words.rpartition("~")[2]
    said = ("负" if minus else "") + count(low, counted) + ("到" + count(high, counted) if high else "")
    ahead, _, words = words.rpartition("~")
    return (_PER[per] if per else ahead) + said + words


def _big(match: re.Match[str]) -> str:
    return number(match.group(1)) + "万"


def _score(match: re.Match[str]) -> str:
    return f"{cardinal(match.group(1))}比{cardinal(match.group(2))}"


def _fraction(match: re.Match[str]) -> str | None:
    minus, top, bottom = match.groups()
    if len(top) > 12 or len(bottom) > 12 or int(bottom) == 0:
        return None
    return ("负" if minus else "") + f"{cardinal(bottom)}分之{cardinal(top)}"


def _range(match: re.Match[str]) -> str | None:
    low, high = match.groups()
    before, after = _before(match), _after(match, 8)
    if re.search(r"[=+×÷*]\s?$", before) or re.match(r"\s?[=+×÷*]", after):
        return f"{number(low)}减{number(high)}"
    dated = re.match(r"\s?年", after) and len(low) == 4 and len(high) == 4
    if dated or (len(low) == 4 and len(high) == 4 and low[:2] in ("18", "19", "20") and low < high):
        return f"{digits(low)}到{digits(high)}"
    if (
        re.search(r"比分|胜|勝|负$|平$|击败|擊敗|[战戰]成", _clause(match)) and after[:1] not in _COUNTED
    ) or (
        "-" in match.group()
        and re.search(r"[㐀-鿿]$", before)
        and not after.strip()
        and len(low + high) <= 3
        and not re.search(r"第|是|为|約|约|到|需要|要|有|在$", before)
    ):
        return f"{number(low)}比{number(high)}"
    return f"{count(low, after)}到{count(high, after)}"


def _minus(match: re.Match[str]) -> str | None:
    if re.search(r"[\w)%\]]$", _before(match, 1)) and not re.search(r"[㐀-鿿]$", _before(match, 1)):
        return None
    return "负" + number(match.group(1))


def _ordinal(match: re.Match[str]) -> str:
    return "第" + re.sub("两(?=[百])", "二", cardinal(match.group(1)))


def _number(match: re.Match[str]) -> str:
    text = match.group()
    if re.search(r"第\s?$", _before(match)) and text.isdigit():
        return cardinal(text).replace("两百", "二百")
    return count(text, _after(match))


def _version(match: re.Match[str]) -> str:
    parts = match.group().split(".")
    if len(parts) == 4 and all(len(p) <= 3 for p in parts):
        return "点".join(digits(part) for part in parts)
    return "点".join(cardinal(part) for part in parts)


def _name(match: re.Match[str]) -> list[Piece] | str:
    """URL, e-mail address: the Latin words as they are, signs and digits in Chinese."""
    words: list[str] = []
    for part in re.findall(r"[A-Za-z]+|\d+|[^\w\s]|_", match.group()[:400]):
        if part.isdigit():
            words.append(digits(part))
        elif part.isalpha():
            words.append(english._name_part(part))
        elif part in _SIGNS_IN_NAMES:
            words.append(_SIGNS_IN_NAMES[part])
    return " ".join(words)


def _letters_to_letters(match: re.Match[str]) -> str:
    text = match.group()
    return f"{text[0].upper()} {'to' if text[1] == '2' else 'for'} {text[2].upper()}"


_CJK = "㐀-鿿\uf900-\ufaff"
_N = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
_ALT = lambda words: "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))  # noqa: E731
_END = r"(?![A-Za-z\d])"
_AMPM = r"(?:\s?([AaPp]\.?[Mm]\.?)(?![A-Za-z]))?"
_UNIT_ALT = _ALT(_UNITS)


def _rule(pattern: str, say: Say | str) -> tuple[re.Pattern[str], Say]:
    return re.compile(pattern), (lambda _match, words=say: words) if isinstance(say, str) else say


_AT_DIGIT: list[tuple[re.Pattern[str], Say]] = [
    _rule(r"(?:86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}(?!\d)|0\d{2,3}-\d{7,8}(?:-\d{1,5})?(?!\d)|[48]00-?\d{3}-?\d{4}(?!\d)", _phone),
    _rule(r"\d{1,5}(?:\.\d{1,5}){3,5}(?![\d.]*\d)", _version),
    _rule(r"(\d{4}|\d{2})([-/.·])(0?[1-9]|1[0-2])\2(3[01]|[12]\d|0?[1-9])(?!\d|[-/.·]\d)",
          lambda m: _date(m.group(1), m.group(3), m.group(4)) if len(m.group(1)) == 4 or m.group(2) != "·" else None),
    _rule(r"()(3[01]|[12]\d|0?[1-9])([-/.])(0?[1-9]|1[0-2])\3((?:1\d|20)\d\d)(?!\d)", lambda m: _date(m.group(5), m.group(4), m.group(2))),
    _rule(r"((?:1\d|20)\d\d)[/](0?[1-9]|1[0-2])(?![\d/])", lambda m: _date(m.group(1), m.group(2), None)),
    _rule(r"(0[1-9]|1[0-2])[.]((?:19|20)\d\d)(?!\d)", lambda m: _date(m.group(2), m.group(1), None)),
    _rule(r"(0[1-9])[-/](3[01]|[12]\d|0[1-9])(?![\d/-])", lambda m: _date("", m.group(1), m.group(2))),
    _rule(r"(\d{1,2})[-/](\d{1,2})日", lambda m: _date("", m.group(1), m.group(2))),
    _rule(r"\d{1,5}(?:\.\d{1,5}){2}(?![\d.]*\d)", _version),
    _rule(rf"(\d{{1,2}}):(\d{{2}})(?::(\d{{2}}))?{_AMPM}(?![\d:])", _clock),
    _rule(r"(\d{1,4})[:：](\d{1,4})(?![\d:])", _score),
    _rule(r"(\d{1,2})\s?([AaPp]\.?[Mm]\.?)(?![A-Za-z])", lambda m: _half_day(m.group(2)) + count(m.group(1), "点") + "点" if int(m.group(1)) < 25 else None),
    _rule(r"(\d{1,4})(?:年(\d{1,2})月)?\s?(ad|AD|bc|BC|b\.c\.|B\.C\.|a\.d\.)(?![A-Za-z])", _era),
    _rule(r"(\d{1,4})\s?年(?=[^级級龄齡纪紀])|(\d{1,4})年$", lambda m: _year(m) if m.group(1) else _year(re.match(r"(\d{1,4})年", m.group())) ),
    _rule(r"(\d{1,2})月(?!份?\d{3})", _month),
    _rule(r"(\d{1,2})([日号號])", _day),
    _rule(r"\d{3,5}(?![\d.,%:])", _service),
    _rule(r"\d{1,30}(?!\d)", _coded),
    _rule(rf"()({_N})(%)?\s?(?:[-–—~到至]\s?({_N}))?%", lambda m: _per_cent("百分之")(m)),
    _rule(rf"()({_N})(‰)?(?:[-–—~]({_N}))?‰", _per_cent("千分之")),
    _rule(rf"({_N})\s?([万亿萬億千百]|million|billion|trillion)?\s?({_ALT(c for c in _CURRENCY if c not in '$')}|\$)(?![A-Za-z\d])", _money_after),
    _rule(r"()(\d+)\s?/\s?(\d+)(?![\d/])", lambda m: _fraction(m)),
    _rule(r"(\d+)分之(\d+)", lambda m: f"{cardinal(m.group(1))}分之{cardinal(m.group(2))}"),
    _rule(rf"()({_N})(?:\s?[-–—~]\s?({_N}))?\s?({_UNIT_ALT})(?:/(h|s|min|d|m³|m²|kg|L|l)(?![A-Za-z]))?{_END}", _measure),
    _rule(rf"({_N})[wW](?![A-Za-z\d])", _big),
    _rule(rf"({_N})k(?![A-Za-z\d])", lambda m: number(m.group(1)) + "千"),
    _rule(rf"({_N})\s?[xX](?=\s?\d)", lambda m: number(m.group(1)) + "乘"),
    _rule(r"([056789][05])(?=[后後](?![天年来來]))", lambda m: digits(m.group(1))),
    _rule(r"(?:315|618|911|211|985|996|007|119|110|120)(?=晚会|晚會|大促|购物|活动|期间|事件|恐|高校|大学|院校|工程|工作制|制度?|急救|报警|火警)|7-11(?!\d)",
          lambda m: digits(m.group(), "幺")),
    _rule(rf"({_N})\s?[-–—~]\s?({_N})(?![-\d])", _range),
    _rule(r"[A-Za-z\d]2[A-Za-z](?![A-Za-z\d])", lambda m: None),
    _rule(r"0\d+(?![.\d])", lambda m: digits(m.group())),
    _rule(_N, _number),
]  # fmt: skip

_AT_SIGN: list[tuple[re.Pattern[str], Say]] = [
    _rule(r"\+\d{1,3}[- ]?\d{2,4}(?:[- ]?\d{3,4}){1,3}(?!\d)", _phone),
    _rule(rf"(-)?((?:US|AU|CA|HK|NT|NZ|A|C|S|R)?\$|[£€¥₩₽₹₫฿₿])\s?({_N})(?:[-–~]({_N}))?\s?([万亿萬億千百]|million|billion|trillion|[kKwWmMbB](?![A-Za-z]))?", _money),
    _rule(rf"(-)({_N})(%)?()%", lambda m: None if re.search(r"[\w]$", _before(m, 1)) and not re.search(rf"[{_CJK}]$", _before(m, 1)) else "负百分之" + number(m.group(2))),
    _rule(r"(-)(\d+)/(\d+)(?![\d/])", _fraction),
    _rule(rf"(-)({_N})()\s?({_UNIT_ALT})(?:/(h|s|min|kg|L))?{_END}", lambda m: _measure(m)),
    _rule(rf"-({_N})", _minus),
    _rule(rf"-(?=百分之|[{_DIGITS}])", lambda m: "负" if not re.search(r"\w$", _before(m, 1)) else None),
    _rule(r">=", "大于等于"),
    _rule(r"<=", "小于等于"),
    _rule(r"!=", "不等于"),
    _rule(r"==", "等于"),
    _rule(r"->|=>", "到"),
    _rule(r"(?:\^2)(?!\d)", "的平方"),
    _rule(r"(?:\^3)(?!\d)", "的立方"),
]  # fmt: skip

_AT_LETTER: list[tuple[re.Pattern[str], Say]] = [
    _rule(r"(?:https?|ftp)://[A-Za-z\d._~:/?#@!$&'()*+;=%-]{1,2000}(?<![.:!?')])", _name),
    _rule(r"[A-Za-z\d][A-Za-z\d._%+-]{0,63}@(?:[A-Za-z\d-]{1,63}\.){1,5}[A-Za-z]{2,24}", _name),
    _rule(rf"(?:www\.[A-Za-z\d._/?=&%-]{{1,500}}|(?:[A-Za-z\d-]{{1,63}}\.){{1,5}}(?:{english._TLDS})(?![A-Za-z\d]))(?:/[A-Za-z\d._~/?#&=%-]{{0,500}})?(?<![.?])", _name),
    _rule(r"()(US\$|AU\$|CA\$|HK\$|NT\$|NZ\$|A\$|C\$|S\$|R\$|CNY|RMB|USD|EUR|GBP|JPY|HKD|KRW|AUD|CAD|CHF|SGD|TWD)\s?"
          rf"({_N})(?:[-–~]({_N}))?\s?([万亿萬億千百]|million|billion)?", _money),
    _rule(r"([A-Za-z])[24]([A-Za-z])(?![A-Za-z\d])", lambda m: _letters_to_letters(m) if m.group(1).lower() != "h" else None),
    _rule(r"(?:[A-Za-z] ){2,6}[A-Za-z](?![A-Za-z])", lambda m: m.group().replace(" ", "").upper()),
    _rule(rf"(?i:{_ALT(_ACRONYMS)})(?![A-Za-z])", lambda m: m.group().upper()),
]  # fmt: skip

_HAN = re.compile(rf"[{_CJK}]")


def is_han(char: str) -> bool:
    """Whether a character is Chinese."""
    return bool(_HAN.match(char))



def _sign(text: str, at: int) -> str | None:
    char = text[at]
    before, after = text[max(0, at - 20) : at], text[at + 1 : at + 21]
    if char in "-–—~":
        if re.search(r"[\w°%)]\s?$", before) and re.match(r"\s?[\d$¥€£]", after):
            if re.search(r"[=+×÷*]\s?[\d.]+\s?$", before) or re.match(r"\s?[\d.]+\s?[=+×÷*]", after):
                return "减"
            return "到" if re.search(r"[\d年月日号點点分时時°%CF万亿元美金]\s?$", before) else None
        if char == "~" and re.match(r"\s?\d", after):
            return "约"
        if re.search(rf"[一-鿿]$", before) and char in "~" and re.match(rf"[{_CJK}]", after):
            return "到"
        return None
    if char in "<>":
        return ("小于" if char == "<" else "大于") if re.match(r"\s?[\w.-]", after) else None
    if char in "*":
        return "乘以" if re.search(r"[\w)]\s?$", before) and re.match(r"\s?[\w(]", after) else None
    if char == "/":
        match = re.match(rf"({_ALT(_PER)})", after)
        if match and re.search(r"[元块美磅度米克人次吨升斤]$", before):
            return "每"
        return None
    if char == "#" or char == "_":
        return None
    if char == "^":
        return "的"
    if char in "+&=" and not (before.strip() and after.strip()):
        return "加" if char == "+" and before[-1:].isalnum() else None
    if char == "²" or char == "³":
        return _SIGNS[char]
    return _SIGNS.get(char)


def read(text: str, at: int, previous_end: int) -> list[Piece]:
    """Say what stands at ``text[at]`` in a Chinese sentence; as ``english.read``."""
    char = text[at]
    if _HAN.match(char):
        return [Piece(at, at + 1, char, "zh")]
    if char.isascii() and char.isdigit():
        rules = _AT_DIGIT
    elif char.isalpha():
        rules = _AT_LETTER
    else:
        rules = _AT_SIGN
    for pattern, say in rules:
        match = pattern.match(text, at)
        if match and match.end() > at:
            said = say(match)
            if isinstance(said, str):
                spoken_in = "zh" if rules is not _AT_LETTER or _HAN.search(said) else "en"
                return [Piece(at, at + len(match.group().rstrip()), said, spoken_in)]
            if said:
                return said
    if char.isalpha():
        digits_follow = re.compile(r"[A-Za-z]{1,20}(?=\d)").match(text, at)
        if digits_follow:  # iPhone15, MP3: the letters here, the digits in Chinese next
            return [Piece(*digits_follow.span(), digits_follow.group(), "en")]
        return english.read(text, at, previous_end, words_only=True)
    spoken = _sign(text, at)
    return [Piece(at, at + 1, spoken, "zh")] if spoken else []
