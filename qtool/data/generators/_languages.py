"""Eight languages: questions about capitals and apples, and the names of countries and their capitals in each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """How a language asks. `sums` are about addition, subtraction and multiplication of {a} and {b}; `capital` and
    `country` ask for the one of {key}, the other; `brief` asks for a short answer; `places` are country and capital."""

    sums: tuple[str, str, str]
    capital: tuple[str, ...]
    country: tuple[str, ...]
    brief: tuple[str, ...]
    places: str

    def pairs(self) -> list[tuple[str, str]]:
        """(country, capital) pairs."""
        return [(country, capital) for country, _, capital in (each.partition("=") for each in self.places.split(", "))]


LANGUAGES = {
    "German": Language(
        ("Anna hat {a} Äpfel und kauft {b} dazu. Wie viele Äpfel hat sie jetzt?",
         "Im Korb liegen {a} Äpfel. Anna nimmt {b} heraus. Wie viele Äpfel bleiben im Korb?",
         "Anna hat {a} Kisten mit je {b} Äpfeln. Wie viele Äpfel sind das zusammen?"),
        ("Land: {key}. Wie heißt die Hauptstadt?", "Welche Stadt ist die Hauptstadt dieses Landes: {key}?"),
        ("Hauptstadt: {key}. Wie heißt das Land?", "Von welchem Land ist diese Stadt die Hauptstadt: {key}?"),
        ("Antworte kurz.", "Nenne nur die Antwort.", "Bitte nur die Antwort."),
        "Frankreich=Paris, Deutschland=Berlin, Italien=Rom, Spanien=Madrid, Portugal=Lissabon, Österreich=Wien, "
        "Polen=Warschau, Griechenland=Athen, Russland=Moskau, Ägypten=Kairo, Japan=Tokio, China=Peking, "
        "Schweden=Stockholm, Norwegen=Oslo, Finnland=Helsinki, Dänemark=Kopenhagen, Ungarn=Budapest, Irland=Dublin, "
        "Kuba=Havanna, Kanada=Ottawa, Irak=Bagdad, Peru=Lima",
    ),
    "French": Language(
        ("Anna a {a} pommes et en achète encore {b}. Combien de pommes a-t-elle maintenant ?",
         "Il y a {a} pommes dans le panier. Anna en prend {b}. Combien de pommes reste-t-il dans le panier ?",
         "Anna a {a} caisses de {b} pommes chacune. Combien de pommes cela fait-il en tout ?"),
        ("Pays : {key}. Quelle est sa capitale ?", "Quelle ville est la capitale de ce pays : {key} ?"),
        ("Capitale : {key}. Quel est son pays ?", "De quel pays cette ville est-elle la capitale : {key} ?"),
        ("Réponds brièvement.", "Donne seulement la réponse.", "La réponse seule, s'il te plaît."),
        "France=Paris, Allemagne=Berlin, Italie=Rome, Espagne=Madrid, Portugal=Lisbonne, Autriche=Vienne, "
        "Pologne=Varsovie, Grèce=Athènes, Russie=Moscou, Égypte=Le Caire, Japon=Tokyo, Chine=Pékin, "
        "Suède=Stockholm, Norvège=Oslo, Finlande=Helsinki, Danemark=Copenhague, Hongrie=Budapest, Irlande=Dublin, "
        "Cuba=La Havane, Canada=Ottawa, Irak=Bagdad, Pérou=Lima",
    ),
    "Spanish": Language(
        ("Ana tiene {a} manzanas y compra {b} más. ¿Cuántas manzanas tiene ahora?",
         "Hay {a} manzanas en la cesta. Ana saca {b}. ¿Cuántas manzanas quedan en la cesta?",
         "Ana tiene {a} cajas con {b} manzanas cada una. ¿Cuántas manzanas son en total?"),
        ("País: {key}. ¿Cuál es su capital?", "¿Qué ciudad es la capital de este país: {key}?"),
        ("Capital: {key}. ¿Cuál es su país?", "¿De qué país es capital esta ciudad: {key}?"),
        ("Responde brevemente.", "Da solo la respuesta.", "Solo la respuesta, por favor."),
        "Francia=París, Alemania=Berlín, Italia=Roma, España=Madrid, Portugal=Lisboa, Austria=Viena, "
        "Polonia=Varsovia, Grecia=Atenas, Rusia=Moscú, Egipto=El Cairo, Japón=Tokio, China=Pekín, "
        "Suecia=Estocolmo, Noruega=Oslo, Finlandia=Helsinki, Dinamarca=Copenhague, Hungría=Budapest, Irlanda=Dublín, "
        "Cuba=La Habana, Canadá=Ottawa, Irak=Bagdad, Perú=Lima",
    ),
    "Russian": Language(
        ("У Анны было яблок: {a}. Она купила ещё {b}. Сколько яблок у неё теперь?",
         "В корзине было яблок: {a}. Анна взяла {b}. Сколько яблок осталось в корзине?",
         "У Анны ящиков: {a}. В каждом ящике яблок: {b}. Сколько всего яблок?"),
        ("Страна: {key}. Как называется её столица?", "Какой город является столицей этой страны: {key}?"),
        ("Столица: {key}. Как называется её страна?", "Столица какой страны этот город: {key}?"),
        ("Ответь кратко.", "Дай только ответ.", "Только ответ, пожалуйста."),
        "Франция=Париж, Германия=Берлин, Италия=Рим, Испания=Мадрид, Португалия=Лиссабон, Австрия=Вена, "
        "Польша=Варшава, Греция=Афины, Россия=Москва, Египет=Каир, Япония=Токио, Китай=Пекин, "
        "Швеция=Стокгольм, Норвегия=Осло, Финляндия=Хельсинки, Дания=Копенгаген, Венгрия=Будапешт, Ирландия=Дублин, "
        "Куба=Гавана, Канада=Оттава, Ирак=Багдад, Перу=Лима",
    ),
    "Chinese": Language(
        ("安娜有{a}个苹果，又买了{b}个。她现在有多少个苹果？",
         "篮子里有{a}个苹果，安娜拿走了{b}个。篮子里还剩多少个苹果？",
         "安娜有{a}箱苹果，每箱{b}个。一共有多少个苹果？"),
        ("国家：{key}。它的首都叫什么？", "这个国家的首都是哪个城市：{key}？"),
        ("首都：{key}。它是哪个国家的首都？", "这个城市是哪个国家的首都：{key}？"),
        ("请简短回答。", "只给出答案。", "请只回答答案。"),
        "法国=巴黎, 德国=柏林, 意大利=罗马, 西班牙=马德里, 葡萄牙=里斯本, 奥地利=维也纳, 波兰=华沙, 希腊=雅典, "
        "俄罗斯=莫斯科, 埃及=开罗, 日本=东京, "
        "中国=北京, 瑞典=斯德哥尔摩, 挪威=奥斯陆, 芬兰=赫尔辛基, 丹麦=哥本哈根, 匈牙利=布达佩斯, "
        "爱尔兰=都柏林, 古巴=哈瓦那, 加拿大=渥太华, 伊拉克=巴格达, 秘鲁=利马",
    ),
    "Japanese": Language(
        ("アンナはりんごを{a}個持っています。さらに{b}個買いました。今、りんごは何個ありますか。",
         "かごにりんごが{a}個あります。アンナが{b}個取り出しました。かごにりんごは何個残っていますか。",
         "りんごの箱が{a}箱あり、一箱に{b}個入っています。りんごは全部で何個ですか。"),
        ("国：{key}。その首都はどこですか。", "次の国の首都はどの都市ですか：{key}。"),
        ("首都：{key}。どの国の首都ですか。", "次の都市はどの国の首都ですか：{key}。"),
        ("短く答えてください。", "答えだけを書いてください。", "答えのみお願いします。"),
        "フランス=パリ, ドイツ=ベルリン, イタリア=ローマ, スペイン=マドリード, ポルトガル=リスボン, "
        "オーストリア=ウィーン, ポーランド=ワルシャワ, ギリシャ=アテネ, ロシア=モスクワ, エジプト=カイロ, 日本=東京, "
        "中国=北京, スウェーデン=ストックホルム, ノルウェー=オスロ, "
        "フィンランド=ヘルシンキ, "
        "デンマーク=コペンハーゲン, ハンガリー=ブダペスト, "
        "アイルランド=ダブリン, キューバ=ハバナ, カナダ=オタワ, イラク=バグダッド, ペルー=リマ",
    ),
    "Arabic": Language(
        ("لدى آنا {a} تفاحة واشترت {b} تفاحة أخرى. كم تفاحة لديها الآن؟",
         "في السلة {a} تفاحة. أخذت آنا منها {b}. كم تفاحة بقيت في السلة؟",
         "لدى آنا {a} صندوقًا، وفي كل صندوق {b} تفاحة. كم تفاحة لديها في المجموع؟"),
        ("الدولة: {key}. ما هي عاصمتها؟", "أي مدينة هي عاصمة هذه الدولة: {key}؟"),
        ("العاصمة: {key}. ما هي دولتها؟", "هذه المدينة عاصمة أي دولة: {key}؟"),
        ("أجب باختصار.", "اكتب الجواب فقط.", "الجواب فقط من فضلك."),
        "فرنسا=باريس, ألمانيا=برلين, إيطاليا=روما, إسبانيا=مدريد, البرتغال=لشبونة, النمسا=فيينا, بولندا=وارسو, "
        "اليونان=أثينا, روسيا=موسكو, مصر=القاهرة, اليابان=طوكيو, الصين=بكين, السويد=ستوكهولم, النرويج=أوسلو, "
        "فنلندا=هلسنكي, الدنمارك=كوبنهاغن, المجر=بودابست, أيرلندا=دبلن, كوبا=هافانا, كندا=أوتاوا, العراق=بغداد, "
        "بيرو=ليما",
    ),
    "Hindi": Language(
        ("आना के पास {a} सेब हैं। वह {b} सेब और खरीदती है। अब उसके पास कितने सेब हैं?",
         "टोकरी में {a} सेब हैं। आना {b} सेब निकाल लेती है। टोकरी में कितने सेब बचे?",
         "आना के पास {a} डिब्बे हैं। हर डिब्बे में {b} सेब हैं। कुल कितने सेब हैं?"),
        ("देश: {key}। इसकी राजधानी क्या है?", "इस देश की राजधानी कौन सा शहर है: {key}?"),
        ("राजधानी: {key}। यह किस देश की राजधानी है?", "यह शहर किस देश की राजधानी है: {key}?"),
        ("संक्षेप में उत्तर दो।", "केवल उत्तर लिखो।", "सिर्फ़ उत्तर दो।"),
        "फ़्रांस=पेरिस, जर्मनी=बर्लिन, इटली=रोम, स्पेन=मैड्रिड, पुर्तगाल=लिस्बन, ऑस्ट्रिया=वियना, पोलैंड=वारसॉ, ग्रीस=एथेंस, "
        "रूस=मॉस्को, मिस्र=काहिरा, जापान=टोक्यो, चीन=बीजिंग, स्वीडन=स्टॉकहोम, नॉर्वे=ओस्लो, फ़िनलैंड=हेलसिंकी, "
        "डेनमार्क=कोपेनहेगन, हंगरी=बुडापेस्ट, आयरलैंड=डबलिन, क्यूबा=हवाना, कनाडा=ओटावा, इराक=बगदाद, पेरू=लीमा",
    ),
}  # fmt: skip
